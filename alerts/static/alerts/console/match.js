// Whether a group from the socket belongs on the page: the rules of alerts/api/filters.py for one group.

import { network } from "./addresses.js";
import { length, now } from "./time.js";

/** A function that says whether a group passes the filters in `query`; `userId` is who "me" is. */
export function matcher(query, userId) {
  const tests = [];
  const anyOf = (name, test) => {
    const values = query.getAll(name);
    if (values.length > 0) tests.push((group) => values.some((value) => test(group, value)));
  };
  const inNetwork = (name, addresses) => {
    const networks = query.getAll(name).map(network);
    if (networks.length > 0) tests.push((group) => networks.some((holds) => addresses(group).some(holds)));
  };

  if (!query.has("status")) tests.push((group) => group.status !== "closed");
  if (!query.has("suppressed")) tests.push((group) => group.count > 0);
  else tests.push((group) => group.suppressed_count > 0);
  anyOf("status", (group, status) => status === "any" || group.status === status);
  anyOf("severity", (group, severity) => group.severity === severity);
  anyOf("disposition", (group, disposition) => group.disposition === disposition);
  anyOf("tenant", (group, slug) => group.tenant.slug === slug);
  anyOf("device", (group, id) => group.device?.id === Number(id));
  anyOf("assignee", (group, who) => isAssigned(group.assignee, who, userId));
  inNetwork("source", (group) => [group.source_ip]);
  inNetwork("destination", (group) => [group.destination_ip]);
  inNetwork("address", (group) => [group.source_ip, group.destination_ip]);
  const words = query.getAll("q").join(" ").toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length > 0) tests.push((group) => containsAll(group.title.toLowerCase(), words));
  const [since, until] = ["since", "until"].map((name) => Date.parse(query.get(name)));
  if (since) tests.push((group) => Date.parse(group.last_seen_at) >= since);
  const within = length(query.get("within"));
  if (within !== null) tests.push((group) => Date.parse(group.last_seen_at) >= now() - within);
  if (until) tests.push((group) => Date.parse(group.last_seen_at) <= until);
  return (group) => tests.every((test) => test(group));
}

function isAssigned(assignee, who, userId) {
  if (who === "none") return assignee === null;
  return assignee?.id === (who === "me" ? userId : Number(who));
}

function containsAll(text, words) {
  return words.every((word) => text.includes(word));
}
