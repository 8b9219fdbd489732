// Puts the console together. Each module says at its top what it does and what it dispatches; they know each other only
// through what they are given here.

import { Alarm } from "./alarm.js";
import { Api } from "./api.js";
import { listenToAnalyst } from "./commands.js";
import { Connection } from "./connection.js";
import { Counts } from "./counts.js";
import { Detail } from "./detail.js";
import { byId } from "./dom.js";
import { Feed } from "./feed.js";
import { Filters } from "./filters.js";
import { Fold } from "./fold.js";
import { Frame } from "./frame.js";
import { Keys } from "./keys.js";
import { GroupList } from "./list.js";
import { Order } from "./order.js";
import { Overview } from "./overview.js";
import { People } from "./people.js";
import { Rules } from "./rules.js";
import { Selection } from "./selection.js";
import { GroupSocket } from "./socket.js";
import { GroupStore } from "./store.js";
import { Suppress } from "./suppress.js";
import { Toasts } from "./toasts.js";
import { Toolbar } from "./toolbar.js";
import { Triage } from "./triage.js";
import { Views } from "./views.js";
import { Wall } from "./wall.js";

const page = byId("console");
const api = new Api(document.querySelector("[name=csrfmiddlewaretoken]").value);
const toasts = new Toasts(byId("toasts"));
const socket = new GroupSocket(page.dataset.socket);
new Connection({
  api,
  socket,
  place: byId("connection"),
  notices: { ended: byId("session-ended"), toomany: byId("too-many"), away: byId("came") },
});
const people = await People.load(api);
const filters = new Filters();
const store = new GroupStore();
const order = new Order(store);
const fold = new Fold({ order, store, select: byId("fold") });
const selection = new Selection();
const counts = new Counts({ api, filters, store });
const keys = new Keys(byId("keys"));

const isInUse = (id) => selection.has(id) || detail.id === id || (list.hasFocus && list.focusedId === id);
const feed = new Feed({ api, store, order, filters, socket, isInUse, isShown: (id) => list.isShown(id) });
const triage = new Triage({
  api,
  feed,
  people,
  toasts,
  dialogs: { close: byId("close"), assign: byId("assign"), note: byId("note"), stale: byId("stale") },
});
const suppress = new Suppress({ api, people, toasts, triage, dialog: byId("suppress") });
const detail = new Detail({
  api,
  store,
  filters,
  people,
  place: byId("detail"),
  behind: document.querySelectorAll("[data-behind]"),
});
const list = new GroupList({
  grid: byId("groups"),
  template: byId("row-template"),
  store,
  order: fold,
  selection,
  stateOf: (id) => ({
    open: detail.id === id,
    busy: triage.isBusy(id),
    stray: feed.isStray(id),
    fresh: frame.isFresh(id),
  }),
});
const frame = new Frame({
  list,
  detail,
  order: fold,
  store,
  feed,
  filters,
  counts,
  place: byId("list"),
  announcer: byId("announcer"),
});

new Alarm({
  socket,
  feed,
  store,
  panel: byId("alarm-panel"),
  badge: byId("alarm-badge"),
  open: (id) => detail.open(id, { takeFocus: true }),
});
new Wall({ counts, keys, place: byId("wall"), toggle: byId("show-wall") });
new Overview({ counts, filters, place: byId("overview"), toggle: byId("show-overview") });
new Views({ api, filters, toasts, place: byId("view-panel") });
new Rules({
  api,
  people,
  toasts,
  suppress,
  place: byId("rules-panel"),
  number: byId("rules-number"),
  notice: byId("ending"),
});
const toolbar = new Toolbar({ filters, counts, people, store, place: byId("toolbar") });
listenToAnalyst({
  keys,
  list,
  order: fold,
  frame,
  toolbar,
  toasts,
  store,
  selection,
  detail,
  triage,
  suppress,
  people,
  filters,
  feed,
  socket,
});

counts.refresh();
detail.followAddress();
await feed.start(people.id);
