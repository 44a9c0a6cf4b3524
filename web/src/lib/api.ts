/** Speaking with the server: plain answers, and answers that come while they are made. */

export class Problem extends Error {
  constructor(
    message: string,
    readonly mend: string | null = null,
  ) {
    super(message);
  }
}

export function asProblem(error: unknown): Problem {
  if (error instanceof Problem) return error;
  return new Problem(error instanceof Error ? error.message : String(error));
}

/** What the server refuses with a reason comes as an answer that says so: see `studio/app.py`. */
function refused(answer: Response): boolean {
  return !answer.ok || answer.headers.has("x-problem");
}

async function refuse(answer: Response): Promise<never> {
  let said: { error?: string; mend?: string | null } = {};
  try {
    said = await answer.json();
  } catch {
    // Not ours: the status is all there is to say.
  }
  throw new Problem(said.error ?? `HTTP ${answer.status}`, said.mend ?? null);
}

export async function ask<T>(path: string, method = "GET", body?: unknown): Promise<T> {
  const answer = await fetch(`/api${path}`, {
    method,
    headers: body === undefined ? {} : { "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (refused(answer)) await refuse(answer);
  return (await answer.json()) as T;
}

export async function floats(path: string): Promise<Float32Array> {
  const answer = await fetch(`/api${path}`);
  if (refused(answer)) await refuse(answer);
  return new Float32Array(await answer.arrayBuffer());
}

export interface Told {
  type: string;
  [key: string]: unknown;
}

/** Ask for something long; `hear` gets what is told meanwhile, the result is returned. */
export async function streamed<T>(
  path: string,
  body: unknown,
  hear: (event: Told) => void,
  signal?: AbortSignal,
): Promise<T> {
  const answer = await fetch(`/api${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  if (refused(answer) || !answer.body) return await refuse(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Problem("The answer was cut off");
    rest += value;
    const lines = rest.split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const event = JSON.parse(line) as Told;
      if (event.type === "result") return event as unknown as T;
      if (event.type === "error") throw new Problem(String(event.error), event.mend as string | null);
      hear(event);
    }
  }
}
