// The groups that the page has, each in its newest revision. It knows nothing of the document.
//
// new GroupStore()
//   .get(id), .has(id), .size, .values()
//   .put(groups, {anew})    keeps each whose revision is newer than the one it has; with `anew`, each
//   .remove(ids)
//   .counts         {severity: {critical: 3, …}, status: {new: 7, …}, urgent: 2}; kept up to date, read only
//   dispatches "change" (detail: [{id, before, after}]) once for each call that changed something;
//     `before` is undefined for a group that is new here, `after` for one that was removed
// Each call costs as much as the groups it is given, however many there are.

/** Groups that are new and critical come before all others and never make room. */
export function isUrgent(group) {
  return group.status === "new" && group.severity === "critical";
}

export class GroupStore extends EventTarget {
  #groups = new Map();
  counts = { severity: {}, status: {}, urgent: 0 };

  get size() {
    return this.#groups.size;
  }

  get(id) {
    return this.#groups.get(id);
  }

  has(id) {
    return this.#groups.has(id);
  }

  values() {
    return this.#groups.values();
  }

  put(groups, { anew = false } = {}) {
    const changes = [];
    for (const after of groups) {
      const before = this.#groups.get(after.id);
      if (before && before.revision >= after.revision && !anew) continue;
      this.#groups.set(after.id, after);
      changes.push({ id: after.id, before, after });
    }
    this.#announce(changes);
  }

  remove(ids) {
    const changes = [];
    for (const id of ids) {
      const before = this.#groups.get(id);
      if (this.#groups.delete(id)) changes.push({ id, before, after: undefined });
    }
    this.#announce(changes);
  }

  #announce(changes) {
    if (changes.length === 0) return;
    for (const { before, after } of changes) {
      if (before) this.#count(before, -1);
      if (after) this.#count(after, 1);
    }
    this.dispatchEvent(new CustomEvent("change", { detail: changes }));
  }

  #count(group, step) {
    const { severity, status } = this.counts;
    severity[group.severity] = (severity[group.severity] ?? 0) + step;
    status[group.status] = (status[group.status] ?? 0) + step;
    if (isUrgent(group)) this.counts.urgent += step;
  }
}
