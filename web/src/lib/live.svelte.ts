/** What every room knows: the store, the jobs, and what changed in another tab. */

import { ask, asProblem, type Problem } from "./api";
import type { Job, Store } from "./kinds";

export const live = $state({
  connected: false,
  ready: false,
  jobs: [] as Job[],
  store: null as Store | null,
  problem: null as Problem | null,
  /** Counts up when another tab may have changed it. */
  talks: 0,
  drafts: {} as Record<string, number>,
});

let fetching = false;
let again = false;

export async function refresh(): Promise<void> {
  if (fetching) {
    again = true;
    return;
  }
  fetching = true;
  try {
    do {
      again = false;
      live.store = await ask<Store>("/store");
      live.problem = null;
    } while (again);
  } catch (error) {
    live.problem = asProblem(error);
  } finally {
    fetching = false;
  }
}

function put(job: Job): void {
  const at = live.jobs.findIndex((each) => each.id === job.id);
  if (at < 0) live.jobs.push(job);
  else live.jobs[at] = job;
}

export function listen(): () => void {
  const source = new EventSource("/api/events");
  let fresh: Job[] | null = null;
  source.onopen = () => (live.connected = true);
  source.onerror = () => (live.connected = false);
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    if (event.type === "hello") fresh = [];
    else if (event.type === "job" && fresh) fresh.push(event);
    else if (event.type === "job") put(event);
    else if (event.type === "job-gone") live.jobs = live.jobs.filter((each) => each.id !== event.id);
    else if (event.type === "ready" && fresh) {
      live.jobs = fresh;
      fresh = null;
      live.ready = true;
      live.talks += 1;
      for (const draft of Object.keys(live.drafts)) live.drafts[draft] = (live.drafts[draft] ?? 0) + 1;
      void refresh();
    } else if (event.type === "changed" && event.what === "store") void refresh();
    else if (event.type === "changed" && event.what === "dialogue") live.talks += 1;
    else if (event.type === "changed" && event.what === "draft")
      live.drafts[event.draft] = (live.drafts[event.draft] ?? 0) + 1;
  };
  void refresh();
  return () => source.close();
}

/** The adapters that can be worn. */
export function adapters(): string[] {
  return (live.store?.adapters ?? []).filter((each) => !each.error).map((each) => each.name);
}

export function startJob(kind: Job["kind"], title: string, args: Record<string, unknown>): Promise<Job> {
  return ask<Job>("/jobs", "POST", { kind, title, args });
}
