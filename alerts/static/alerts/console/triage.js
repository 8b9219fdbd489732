// What the analyst does about groups. Nothing is shown as done before the server says so: until then the rows are busy.
//
// new Triage({api, feed, people, toasts, dialogs})   `dialogs` = {close, assign, note, stale}, elements
//   .setStatus(groups, status), .close(groups), .closeAs(groups, disposition, note), .assign(groups), .assignTo(groups, person or null), .note(groups)
//   .undo()
//   .isBusy(id)
//   dispatches "busy" (detail: ids that are busy, or are no longer) and "done" (detail: {changed}), after the feed has
//     received the groups
// `groups` are as the analyst saw them when deciding, so that the server can tell whether somebody was faster.

import { Problem } from "./api.js";
import { element } from "./dom.js";
import { ask } from "./questions.js";
import { ago } from "./time.js";
import { counted, DISPOSITIONS, STATUSES, state } from "./words.js";

const MAX_GROUPS = 500; // in one operation

export class Triage extends EventTarget {
  #parts;
  #busy = new Set();
  #undoable = []; // operations of this page, {operation, words}

  constructor(parts) {
    super();
    this.#parts = parts;
  }

  isBusy(id) {
    return this.#busy.has(id);
  }

  setStatus(groups, status) {
    return this.#apply(groups, { status }, STATUSES[status]);
  }

  async close(groups) {
    const { dialogs } = this.#parts;
    const allowed = this.#allowed(groups);
    if (allowed.length === 0) return;
    this.#introduce(dialogs.close, allowed);
    const answer = await ask(dialogs.close);
    if (!answer) return;
    await this.closeAs(allowed, answer.get("disposition"), answer.get("note"));
  }

  closeAs(groups, disposition, note) {
    const change = { status: "closed", disposition };
    if (note.trim()) change.note = note;
    return this.#apply(groups, change, `Closed as ${DISPOSITIONS[disposition].toLowerCase()}`);
  }

  async assign(groups) {
    const { dialogs } = this.#parts;
    const allowed = this.#allowed(groups);
    if (allowed.length === 0) return;
    const people = await this.#assignable(allowed);
    if (!people) return;
    this.#introduce(dialogs.assign, allowed);
    dialogs.assign
      .querySelector("select")
      .replaceChildren(
        element("option", { value: "" }, "Nobody"),
        ...people.map(({ id, name }) => element("option", { value: id }, name)),
      );
    const answer = await ask(dialogs.assign);
    if (!answer) return;
    const person = people.find(({ id }) => id === Number(answer.get("assignee")));
    await this.assignTo(allowed, person ?? null);
  }

  assignTo(groups, person) {
    const words = person ? `Assigned to ${person.name}` : "Assigned to nobody";
    return this.#apply(groups, { assignee: person?.id ?? null }, words);
  }

  async note(groups) {
    const { dialogs } = this.#parts;
    const allowed = this.#allowed(groups);
    if (allowed.length === 0) return;
    this.#introduce(dialogs.note, allowed);
    const answer = await ask(dialogs.note);
    if (answer?.get("note").trim()) await this.#apply(allowed, { note: answer.get("note") }, "Noted");
  }

  async undo() {
    const last = this.#undoable.pop();
    if (!last) return this.#parts.toasts.show("There is nothing to undo.");
    const answer = await this.#send("undo", { operation: newId(), undoes: last.operation }, last.ids);
    if (!answer) return;
    const kept = answer.stale.length + answer.refused.length;
    const rest = kept > 0 ? ` ${counted(kept, "group")} changed since and kept as it is.` : "";
    this.#parts.toasts.show(`Undone: ${last.words}.${rest}`);
  }

  async #apply(groups, change, words, { force = false } = {}) {
    const allowed = this.#allowed(groups);
    if (allowed.length === 0) return;
    const versions = allowed.map(({ id, version }) => ({ id, version }));
    const body = { operation: newId(), groups: versions, ...change, force };
    const answer = await this.#send(
      "triage",
      body,
      versions.map(({ id }) => id),
    );
    if (!answer) return;
    const { changed, stale, refused } = answer;
    if (changed.length + stale.length + refused.length === 0) this.#parts.toasts.show("That is how it is already.");
    if (changed.length > 0) this.#tell(body, changed, words);
    if (refused.length > 0) this.#parts.toasts.show(refused[0].detail, { error: true });
    if (stale.length > 0) await this.#confirm(allowed, stale, change, words);
  }

  #allowed(groups) {
    const { people, toasts } = this.#parts;
    const allowed = groups.filter((group) => people.mayTriage(group));
    if (allowed.length > MAX_GROUPS) {
      toasts.show(`At most ${MAX_GROUPS} groups can be changed at once.`, { error: true });
      return [];
    }
    if (groups.length > 0 && allowed.length === 0) toasts.show("You may look at these groups, but not change them.");
    return allowed;
  }

  #tell({ operation, status, assignee }, changed, words) {
    const what = changed.length === 1 ? `“${changed[0].title}”` : counted(changed.length, "group");
    const sentence = `${words}: ${what}`;
    // History is only added to, so a note stays.
    if (status === undefined && assignee === undefined) return this.#parts.toasts.show(sentence);
    this.#undoable.push({ operation, words: sentence, ids: changed.map(({ id }) => id) });
    this.#parts.toasts.show(sentence, { action: "Undo", run: () => this.undo() });
  }

  // Somebody was faster. What they did is shown; it is only overwritten if the analyst says so.
  async #confirm(seen, stale, change, words) {
    const { dialogs } = this.#parts;
    const before = new Map(seen.map((group) => [group.id, group]));
    dialogs.stale
      .querySelector("ul")
      .replaceChildren(
        ...stale.map(({ group, change: theirs }) =>
          element(
            "li",
            {},
            element("strong", { dir: "auto" }, group.title),
            `: ${happened(before.get(group.id), group, theirs)}`,
          ),
        ),
      );
    if (await ask(dialogs.stale)) {
      await this.#apply(
        stale.map(({ group }) => group),
        change,
        words,
        { force: true },
      );
    }
  }

  // A lost answer is asked for again with the same operation, which the server does only once.
  async #send(path, body, ids) {
    this.#setBusy(ids, true);
    try {
      const answer = await this.#parts.api.post(path, body, { repeatable: true });
      const changed = [...answer.changed, ...answer.stale.map(({ group }) => group)];
      this.#parts.feed.receive(changed);
      this.dispatchEvent(new CustomEvent("done", { detail: { changed: answer.changed } }));
      return answer;
    } catch (error) {
      return this.#explain(error, path, body, ids);
    } finally {
      this.#setBusy(ids, false);
    }
  }

  #explain(error, path, body, ids) {
    if (error instanceof Problem) {
      if (error.status !== 401) this.#parts.toasts.show(error.message, { error: true, stays: true });
      return null;
    }
    return new Promise((resolve) => {
      this.#parts.toasts.show(`${error.message} It is not known whether your change was made.`, {
        error: true,
        stays: true,
        action: "Try again",
        run: () => resolve(this.#send(path, body, ids)),
      });
    });
  }

  #setBusy(ids, busy) {
    for (const id of ids) busy ? this.#busy.add(id) : this.#busy.delete(id);
    this.dispatchEvent(new CustomEvent("busy", { detail: ids }));
  }

  // Whom all of the groups can be assigned to.
  async #assignable(groups) {
    const ofTenants = new Map(groups.map((group) => [group.tenant.slug, group.id]));
    try {
      const answers = await Promise.all([...ofTenants.values()].map((id) => this.#parts.api.get(`groups/${id}`)));
      const [first, ...others] = answers.map((answer) => answer.assignable);
      return first.filter(({ id }) => others.every((people) => people.some((person) => person.id === id)));
    } catch (error) {
      this.#parts.toasts.show(error.message, { error: true });
      return null;
    }
  }

  #introduce(dialog, groups) {
    dialog.querySelector(".subject").textContent =
      groups.length === 1 ? groups[0].title : counted(groups.length, "group");
    dialog.querySelector("form").reset();
  }
}

/** "closed as benign by ben 3 s ago": how `group` differs from what the analyst saw. */
function happened(seen, group, change) {
  if (seen.status !== group.status || seen.disposition !== group.disposition) {
    return `${state(group).toLowerCase()} by ${group.status_changed_by} ${ago(new Date(group.status_changed_at))}`;
  }
  if (!change) return "changed meanwhile";
  return `${change.field} changed by ${change.user} ${ago(new Date(change.at))}`;
}

// crypto.randomUUID() exists only on HTTPS and on this machine.
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40; // version 4
  bytes[8] = (bytes[8] & 0x3f) | 0x80; // variant of RFC 9562
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
