// Who reads the page, and what they may do.
//
// await People.load(api) → people, however long the server takes to answer
//   .id, .name, .tenants        as GET /api/v1/me answers
//   .mayTriage(group), .mayTriageAnything

import { Unanswered } from "./api.js";

export class People {
  static async load(api) {
    for (;;) {
      try {
        return new People(await api.get("me"));
      } catch (error) {
        if (!(error instanceof Unanswered)) throw error;
      }
    }
  }

  constructor({ user, tenants }) {
    this.id = user.id;
    this.name = user.name;
    this.tenants = tenants;
    this.triaged = new Set(tenants.filter((tenant) => tenant.may_triage).map((tenant) => tenant.slug));
  }

  get mayTriageAnything() {
    return this.triaged.size > 0;
  }

  mayTriage(group) {
    return this.triaged.has(group.tenant.slug);
  }
}
