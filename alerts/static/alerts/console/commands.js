// What keys, clicks and buttons do, and on which groups: those that are selected; if none is, the one that is opened
// and has the focus; else the one with the focus in the list, or those below the heading with the focus.

import { byId } from "./dom.js";

const STATUS_OF = { acknowledge: "acknowledged", start: "in_progress", reopen: "new" };

export function listenToAnalyst(parts) {
  listenToList(parts);
  addKeys(parts);
  listenToButtons(parts);
  listenToChanges(parts);
}

/** The groups that a command is about, as they are shown now. */
function subjects({ list, order, store, selection, detail }) {
  if (selection.size > 0) return selection.ids.map((id) => store.get(id)).filter(Boolean);
  const isInDetail = detail.id !== null && detail.place.contains(document.activeElement);
  if (!isInDetail && list.hasFocus)
    return order
      .groupsOf(list.focusedId)
      .map((id) => store.get(id))
      .filter(Boolean);
  return detail.group ? [detail.group] : [];
}

const COMMANDS = {
  acknowledge: ({ triage }, groups) => triage.setStatus(groups, STATUS_OF.acknowledge),
  start: ({ triage }, groups) => triage.setStatus(groups, STATUS_OF.start),
  reopen: ({ triage }, groups) => triage.setStatus(groups, STATUS_OF.reopen),
  close: ({ triage }, groups) => triage.close(groups),
  assign: ({ triage }, groups) => triage.assign(groups),
  mine: ({ triage, people }, groups) => triage.assignTo(groups, people),
  note: ({ triage }, groups) => triage.note(groups),
  suppress: ({ suppress, toasts }, groups) =>
    groups.length === 1 ? suppress.group(groups[0]) : toasts.show("Suppress the alerts of one group at a time."),
};

function run(name, parts, groups = subjects(parts)) {
  if (groups.length > 0) COMMANDS[name](parts, groups);
}

function listenToList(parts) {
  const { list, selection } = parts;
  list.addEventListener("open", ({ detail: { id } }) => open(parts, id));
  list.addEventListener("toggle", ({ detail: { id, range } }) => {
    if (range && selection.anchor !== null) selection.extend(list.between(selection.anchor, id));
    else select(parts, id);
  });
}

function open({ order, detail }, id, options) {
  if (order.heading(id)) order.toggle(id);
  else detail.open(id, options);
}

function select({ order, selection }, id) {
  if (!order.heading(id)) return selection.toggle(id);
  const ids = order.groupsOf(id);
  if (ids.every((each) => selection.has(each))) selection.drop(ids);
  else selection.extend(ids);
}

function addKeys(parts) {
  const { keys, people } = parts;
  addKeysThatMove(parts);
  addKeysThatSelect(parts);
  if (people.mayTriageAnything) addKeysThatChange(parts);
  keys.add({ key: "?", words: "Show or hide these keys", section: "Page", run: () => keys.toggle() });
}

// Keys that mean something everywhere, such as Enter, do this only in a row.
const inRow = (event) => event.target.closest(".row") !== null;

function addKeysThatMove(parts) {
  const { keys, list, frame, toolbar } = parts;
  const add = (action) => keys.add({ section: "Move", ...action });
  const step = (by) => (event) => !(event.key.startsWith("Arrow") && !inRow(event)) && move(parts, by, event.shiftKey);
  const openFocused = (event) => {
    if ((event.key === "Enter" && !inRow(event)) || list.focusedId === null) return false;
    open(parts, list.focusedId, { takeFocus: true });
  };
  add({ key: ["j", "ArrowDown"], also: ["J"], words: "Next group; with Shift, select both", run: step(1) });
  add({ key: ["k", "ArrowUp"], also: ["K"], words: "Previous group; with Shift, select both", run: step(-1) });
  add({ key: ["o", "Enter"], words: "Open the group; fold or unfold", run: openFocused });
  add({ key: ".", words: "Show what is new, at the top", run: () => frame.showWaiting() });
  add({ key: "/", words: "Search", run: () => toolbar.focusSearch() });
  add({ key: "Escape", words: "Close the group; clear the selection", run: () => leave(parts) });
}

function move(parts, by, selects) {
  const { list, order, selection, detail } = parts;
  const from = list.focusedId;
  const inDetail = detail.id !== null && detail.place.contains(document.activeElement);
  const id = list.step(list.hasFocus || detail.id !== null ? by : 0);
  if (selects && from !== null && !order.groupsOf(from).every((each) => selection.has(each))) select(parts, from);
  if (selects) selection.extend(order.groupsOf(id));
  if (detail.id !== null && !order.heading(id)) detail.open(id, { takeFocus: inDetail });
}

function addKeysThatSelect(parts) {
  const { keys, list, order, selection } = parts;
  const toggle = (event) => {
    if ((event.key === " " && !inRow(event)) || list.focusedId === null) return false;
    select(parts, list.focusedId);
  };
  const extend = () => {
    if (selection.anchor === null) return false;
    selection.extend(list.between(selection.anchor, list.focusedId));
  };
  keys.add({ key: ["x", " "], words: "Select or unselect", section: "Select", run: toggle });
  keys.add({
    key: "*",
    words: "Select all that are loaded",
    section: "Select",
    run: () => selection.extend(order.ids),
  });
  keys.add({ key: "X", words: "Select all from the last one to here", section: "Select", run: extend });
}

function addKeysThatChange(parts) {
  const { keys, triage } = parts;
  const add = (key, name, words) => keys.add({ key, words, section: "Triage", run: () => run(name, parts) });
  add("a", "acknowledge", "Acknowledge");
  add("i", "start", "In progress");
  add("c", "close", "Close, with a disposition");
  add("e", "assign", "Assign");
  add("m", "mine", "Assign to me");
  add("n", "note", "Add a note");
  add("r", "reopen", "Reopen: new again");
  add("s", "suppress", "Suppress such alerts");
  keys.add({ key: "u", words: "Undo", section: "Triage", run: () => triage.undo() });
}

// One step back at a time.
function leave({ detail, selection, list }) {
  if (detail.id !== null) {
    detail.close();
  } else if (selection.size > 0) selection.clear();
  else if (list.hasFocus) document.activeElement.blur();
  else return false;
}

function listenToButtons(parts) {
  const { detail, keys, list } = parts;
  detail.actions.addEventListener("click", (event) => {
    const name = event.target.closest("[data-command]")?.dataset.command;
    if (name) run(name, parts, [detail.group]);
  });
  byId("search").addEventListener("keydown", ({ key }) => {
    if (key === "Enter") list.step(0);
  });
  byId("show-keys").addEventListener("click", () => keys.toggle());
  const bar = byId("bulk");
  if (bar) listenToBar(bar, parts);
}

function listenToBar(bar, parts) {
  const { selection, order } = parts;
  bar.addEventListener("click", (event) => {
    const name = event.target.closest("[data-command]")?.dataset.command;
    if (name === "none") selection.clear();
    else if (name === "all") selection.extend(order.ids);
    else if (name) run(name, parts);
  });
  selection.addEventListener("change", () => {
    bar.hidden = selection.size === 0;
    bar.querySelector(".bulk-count").textContent = `${selection.size.toLocaleString()} selected`;
  });
}

function listenToChanges({ list, order, detail, triage, selection, feed, filters, socket, store }) {
  let opened = null;
  detail.addEventListener("change", () => {
    list.redraw([opened, detail.id]);
    if (!selection.has(opened)) feed.drop([opened]);
    if (detail.id === null && !document.activeElement.closest(".row, dialog")) list.focus(opened);
    opened = detail.id;
    document.body.classList.toggle("has-detail", detail.id !== null);
  });
  triage.addEventListener("busy", ({ detail: ids }) => list.redraw(ids));
  triage.addEventListener("done", ({ detail: { changed } }) => {
    detail.receive(changed);
    const gone = changed.map(({ id }) => id).filter((id) => feed.isStray(id));
    selection.drop(gone);
    feed.drop(gone.filter((id) => id !== detail.id));
    order.settle(changed.map(({ id }) => id).filter((id) => order.arrived.has(id))); // what was undone is back at once
  });
  socket.addEventListener("groups", ({ detail: groups }) => detail.receive(groups));
  feed.addEventListener("loaded", ({ detail: { anew } }) => detail.reload({ anew }));
  filters.addEventListener("change", () => {
    selection.clear();
    list.toTop();
    list.release();
  });
  store.addEventListener("change", ({ detail: changes }) => {
    selection.drop(changes.filter(({ after }) => !after).map(({ id }) => id));
  });
}
