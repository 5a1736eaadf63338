// Texts: sentences of a vacancy, words with their share of a score, forms to copy.

import type { Hit, Pair, Question, Result } from "./service";

/** Sentences and list items of a text: what ends with a line or with a full stop before a capital. */
export function sentences(text: string): string[] {
  return text
    .split(/\n+/)
    .flatMap((line) => line.split(/(?<=[.!?])\s+(?=[\p{Lu}\d"'])/u))
    .map((sentence) => sentence.replace(/^[\s\-*•·–]+/, "").trim())
    .filter((sentence) => sentence.length > 2);
}

/** A part of a text with its level from 0 (nothing) to 4 (the largest share) and its share. */
export interface Shade {
  text: string;
  level: number;
  share: number;
}

/** The text in parts of equal shade. Characters are counted as the service counts them: by code points. */
export function shade(text: string, pairs: Pair[], side: "query" | "target", score: number): Shade[] {
  const characters = [...text];
  const shares = new Array<number>(characters.length).fill(0);
  for (const pair of pairs) {
    const { start, end } = pair[side];
    if (start === null || end === null) continue;
    for (let place = start; place < end && place < shares.length; place++) shares[place]! += pair.contribution;
  }
  const largest = Math.max(...shares, 1e-9);
  const shades: Shade[] = [];
  characters.forEach((character, place) => {
    const level = Math.round((Math.max(shares[place]!, 0) / largest) * 4);
    const share = shares[place]! / Math.max(Math.abs(score), 1e-9);
    const last = shades[shades.length - 1];
    if (last && last.level === level && Math.abs(last.share - share) < 1e-9) last.text += character;
    else shades.push({ text: character, level, share });
  });
  return shades;
}

function quoted(value: string): string {
  return /[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}

export function asCsv(results: Result[]): string {
  const rows = results.flatMap((result) =>
    result.hits.map((hit) => [result.query, hit.rank, hit.target, hit.id ?? "", hit.score.toFixed(4)].map(String)),
  );
  return [["query", "rank", "target", "id", "score"], ...rows].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
}

export function asJson(results: Result[]): string {
  const plain = results.map((result) => ({
    ...result,
    hits: result.hits.map(({ evidence: _, ...hit }) => hit),
  }));
  return JSON.stringify(plain, null, 2) + "\n";
}

export function asCurl(question: Question): string {
  const body = JSON.stringify({ ...question, evidence: undefined }).replaceAll("'", "'\\''");
  return `curl ${location.origin}/v1/rank -H 'Content-Type: application/json' -d '${body}'\n`;
}

/** A link for an identifier that is one. */
export function link(hit: Hit): string | null {
  return hit.id && /^https?:\/\//.test(hit.id) ? hit.id : null;
}
