// Shows how far a running export is, and its files once it has finished.

const EVERY = 2000; // milliseconds

async function refresh() {
  const shown = document.getElementById("files");
  if (!shown?.querySelector("progress")) {
    return;
  }
  const now = await latest();
  if (now && !now.querySelector("progress")) {
    location.reload(); // its other fields have changed as well
    return;
  }
  if (now) {
    shown.replaceWith(now);
  }
  setTimeout(refresh, EVERY);
}

/** That part of the page as it is now, or null if it can't be had. */
async function latest() {
  try {
    const response = await fetch(location.href);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    return page.getElementById("files");
  } catch {
    return null; // the network is away: look again
  }
}

setTimeout(refresh, EVERY);
