// What the page asks the service.

export interface Token {
  text: string | null;
  start: number | null;
  end: number | null;
}

export interface Pair {
  query: Token;
  target: Token;
  weight: number;
  cosine: number;
  contribution: number;
}

export interface Hit {
  rank: number;
  target: string;
  id: string | null;
  score: number;
  evidence?: { pairs: Pair[]; rest: number };
}

export interface Result {
  query: string;
  truncated: boolean;
  hits: Hit[];
}

export interface SpaceInfo {
  name: string;
  state: "ready" | "building" | "replacing" | "failed";
  targets: number | null;
}

export interface Question {
  texts: string[];
  space: string;
  top: number;
  scorer?: string;
  threshold?: number;
  evidence: boolean;
}

/** A refusal, in the service's own words. */
export class Refusal extends Error {
  constructor(
    message: string,
    readonly hint: string,
    readonly status: number,
  ) {
    super(message);
  }
}

function headers(): Record<string, string> {
  const key = sessionStorage.getItem("uwe-key");
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function read(response: Response): Promise<unknown> {
  const body = await response.json().catch(() => null);
  if (response.ok) return body;
  const error = body?.error;
  throw new Refusal(error?.message ?? `the service answered ${response.status}`, error?.hint ?? "", response.status);
}

export async function spaces(): Promise<SpaceInfo[]> {
  const body = (await read(await fetch("/v1/spaces", { headers: headers() }))) as { spaces: SpaceInfo[] };
  return body.spaces;
}

/** Ranks, with the time that the service took in milliseconds. */
export async function rank(question: Question, signal: AbortSignal): Promise<{ results: Result[]; took: number }> {
  const response = await fetch("/v1/rank", {
    method: "POST",
    headers: headers(),
    body: JSON.stringify(question),
    signal,
  });
  const took = /total;dur=([\d.]+)/.exec(response.headers.get("server-timing") ?? "")?.[1];
  const body = (await read(response)) as { results: Result[] };
  return { results: body.results, took: Number(took ?? NaN) };
}
