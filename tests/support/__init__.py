"""What tests and programs that test share: servers, clients, events, and what answers must look like."""
