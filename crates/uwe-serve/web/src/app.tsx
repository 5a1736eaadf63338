// The page: a text, a space, and the hits with the words that matched.

import { render } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Hit, type Question, Refusal, type Result, type SpaceInfo, rank, spaces as listSpaces } from "./service";
import { asCsv, asCurl, asJson, link, sentences, shade } from "./text";

const SCORERS: [string, string][] = [
  ["", "as the model was trained"],
  ["soft", "soft late interaction"],
  ["soft-pooled", "soft, pooled target"],
  ["maxsim", "MaxSim"],
  ["cosine", "cosine"],
];

const EXAMPLES = [
  "pastry chef",
  "night nurse on a geriatric ward",
  "You will keep our delivery vans on the road and check them before every tour.",
];

/** Most sentences of a vacancy that are asked at a time. */
const MOST_SENTENCES = 60;

interface Answer {
  results: Result[];
  took: number;
}

/** Asks when the question stands still for a moment; an older answer never covers a newer one. */
function useAnswer(question: Question | null): [Answer | null, Refusal | null, boolean] {
  const [answer, setAnswer] = useState<Answer | null>(null);
  const [refusal, setRefusal] = useState<Refusal | null>(null);
  const [busy, setBusy] = useState(false);
  const key = JSON.stringify(question);
  useEffect(() => {
    if (!question) {
      setAnswer(null);
      setRefusal(null);
      return;
    }
    const abort = new AbortController();
    const timer = setTimeout(() => {
      setBusy(true);
      rank(question, abort.signal)
        .then((found) => {
          setAnswer(found);
          setRefusal(null);
        })
        .catch((error: unknown) => {
          if (abort.signal.aborted) return;
          setAnswer(null);
          setRefusal(error instanceof Refusal ? error : new Refusal("the service cannot be reached", "is it running?", 0));
        })
        .finally(() => !abort.signal.aborted && setBusy(false));
    }, 120);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [key]);
  return [answer, refusal, busy];
}

function Words({ text, hit, side }: { text: string; hit: Hit | null; side: "query" | "target" }) {
  if (!hit?.evidence) return <>{text}</>;
  return (
    <>
      {shade(text, hit.evidence.pairs, side, hit.score).map((part, index) =>
        part.level === 0 ? (
          <span key={index}>{part.text}</span>
        ) : (
          <mark key={index} class={`level-${part.level}`} title={`${(part.share * 100).toFixed(0)} % of the score`}>
            {part.text}
          </mark>
        ),
      )}
    </>
  );
}

function HitRow({ hit, chosen, choose }: { hit: Hit; chosen: boolean; choose: (hit: Hit | null) => void }) {
  const address = link(hit);
  const pairs = hit.evidence?.pairs.filter((pair) => pair.query.text && pair.target.text).slice(0, 4) ?? [];
  return (
    <li class={chosen ? "hit chosen" : "hit"} onMouseEnter={() => choose(hit)}>
      <button class="row" aria-expanded={chosen} onFocus={() => choose(hit)} onClick={() => choose(hit)}>
        <span class="place">{hit.rank}</span>
        <span class="name">
          <Words text={hit.target} hit={chosen ? hit : null} side="target" />
        </span>
        <span class="score">{hit.score.toFixed(3)}</span>
        <meter min={0} max={1} value={Math.max(hit.score, 0)} aria-label={`score ${hit.score.toFixed(3)}`} />
      </button>
      {chosen && (
        <div class="why">
          {pairs.map((pair, index) => (
            <span class="pair" key={index}>
              {pair.query.text} ~ {pair.target.text} <b>{((pair.contribution / hit.score) * 100).toFixed(0)} %</b>
            </span>
          ))}
          {address && (
            <a href={address} target="_blank" rel="noreferrer">
              {address.includes("data.europa.eu/esco") ? "ESCO" : "open"}
            </a>
          )}
          {hit.id && !address && <code>{hit.id}</code>}
        </div>
      )}
    </li>
  );
}

function ResultView({ result, label }: { result: Result; label?: string }) {
  const [chosen, setChosen] = useState<Hit | null>(null);
  const current = result.hits.find((hit) => hit.rank === chosen?.rank && hit.target === chosen.target) ?? null;
  return (
    <section class="result" aria-label={label ?? result.query}>
      {label && <h2>{label}</h2>}
      <p class="query">
        <Words text={result.query} hit={current} side="query" />
        {result.truncated && <em class="cut"> (its end was left out: the model reads no more)</em>}
      </p>
      {result.hits.length === 0 ? (
        <p class="none">nothing above the threshold</p>
      ) : (
        <ol class="hits">
          {result.hits.map((hit) => (
            <HitRow key={`${hit.rank} ${hit.target}`} hit={hit} chosen={current === hit} choose={setChosen} />
          ))}
        </ol>
      )}
    </section>
  );
}

function Copy({ name, text }: { name: string; text: () => string }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text());
    setDone(true);
    setTimeout(() => setDone(false), 1200);
  };
  return (
    <button class="small" onClick={copy}>
      {done ? "copied" : name}
    </button>
  );
}

function KeyForm({ refusal, retry }: { refusal: Refusal; retry: () => void }) {
  const [key, setKey] = useState("");
  const keep = (event: Event) => {
    event.preventDefault();
    sessionStorage.setItem("uwe-key", key);
    retry();
  };
  return (
    <form class="refusal" onSubmit={keep}>
      <p role="alert">{refusal.message}</p>
      <label>
        Key for this tab:{" "}
        <input type="password" value={key} onInput={(event) => setKey(event.currentTarget.value)} />
      </label>
      <button class="small">use</button>
    </form>
  );
}

function App() {
  const [spaces, setSpaces] = useState<SpaceInfo[]>([]);
  const [trouble, setTrouble] = useState<Refusal | null>(null);
  const [space, setSpace] = useState("");
  const [text, setText] = useState("");
  const [whole, setWhole] = useState(false);
  const [scorer, setScorer] = useState("");
  const [other, setOther] = useState<string | null>(null);
  const [threshold, setThreshold] = useState(0.5);
  const field = useRef<HTMLTextAreaElement>(null);

  const load = () =>
    listSpaces()
      .then((found) => {
        setSpaces(found);
        setTrouble(null);
        const ready = found.filter((one) => one.state === "ready" || one.state === "replacing");
        setSpace((now) => now || (ready.find((one) => one.name !== "starter") ?? ready[0])?.name || "");
      })
      .catch((error: unknown) =>
        setTrouble(error instanceof Refusal ? error : new Refusal("the service cannot be reached", "", 0)),
      );
  useEffect(() => {
    void load();
    field.current?.focus();
  }, []);

  const texts = useMemo(
    () => (whole ? sentences(text).slice(0, MOST_SENTENCES) : text.trim() ? [text.trim()] : []),
    [text, whole],
  );
  const ask = (name: string): Question | null =>
    texts.length && space
      ? {
          texts,
          space,
          top: whole ? 5 : 12,
          ...(name ? { scorer: name } : {}),
          ...(whole ? { threshold } : {}),
          evidence: true,
        }
      : null;
  const question = ask(scorer);
  const [answer, refusal, busy] = useAnswer(question);
  const [second] = useAnswer(other === null ? null : ask(other));
  const name = (value: string) => SCORERS.find(([key]) => key === value)?.[1] ?? value;
  const problem = refusal ?? trouble;
  const found = answer?.results.filter((result) => !whole || result.hits.length > 0) ?? [];

  return (
    <>
      <header>
        <h1>uwe</h1>
        <p>Give it a title, a skill or a whole vacancy: it ranks what belongs to it, and shows which words matched.</p>
      </header>
      <main>
        <div class="ask">
          <label for="text">Text</label>
          <textarea
            id="text"
            ref={field}
            rows={whole ? 9 : 2}
            value={text}
            placeholder={whole ? "Paste a vacancy" : "A job title, a skill, a sentence of a vacancy"}
            onInput={(event) => {
              setText(event.currentTarget.value);
              if (event.currentTarget.value.trim().split("\n").length > 3) setWhole(true);
            }}
          />
          {!text && (
            <p class="examples">
              Try{" "}
              {EXAMPLES.map((example) => (
                <button class="small" key={example} onClick={() => setText(example)}>
                  {example}
                </button>
              ))}
            </p>
          )}
          <div class="choices">
            <label>
              Rank{" "}
              <select value={space} onChange={(event) => setSpace(event.currentTarget.value)}>
                {spaces.map((one) => (
                  <option key={one.name} value={one.name} disabled={one.targets === null}>
                    {one.name} ({one.targets?.toLocaleString("en") ?? one.state})
                  </option>
                ))}
              </select>
            </label>
            <label>
              Scorer{" "}
              <select value={scorer} onChange={(event) => setScorer(event.currentTarget.value)}>
                {SCORERS.map(([key, label]) => (
                  <option key={key} value={key}>
                    {label}
                  </option>
                ))}
              </select>
            </label>
            <label>
              Compare with{" "}
              <select
                value={other ?? "none"}
                onChange={(event) => setOther(event.currentTarget.value === "none" ? null : event.currentTarget.value)}
              >
                <option value="none">nothing</option>
                {SCORERS.filter(([key]) => key !== "" && key !== scorer).map(([key, label]) => (
                  <option key={key} value={key}>
                    {label}
                  </option>
                ))}
              </select>
            </label>
            <label class="check">
              <input type="checkbox" checked={whole} onChange={(event) => setWhole(event.currentTarget.checked)} /> sentence
              by sentence
            </label>
            {whole && (
              <label>
                Threshold <output>{threshold.toFixed(2)}</output>{" "}
                <input
                  type="range"
                  min={0}
                  max={1}
                  step={0.01}
                  value={threshold}
                  onInput={(event) => setThreshold(event.currentTarget.valueAsNumber)}
                />
              </label>
            )}
          </div>
        </div>
        {problem?.status === 401 ? (
          <KeyForm refusal={problem} retry={load} />
        ) : (
          problem && (
            <p class="refusal" role="alert">
              {problem.message} {problem.hint && <span>({problem.hint})</span>}
            </p>
          )
        )}
        <p class="status" role="status">
          {answer &&
            `${found.reduce((sum, result) => sum + result.hits.length, 0)} hits` +
              (whole ? ` in ${found.length} of ${texts.length} sentences` : "") +
              (Number.isNaN(answer.took) ? "" : `, ${answer.took.toFixed(1)} ms`)}
          {busy && !answer && "…"}
        </p>
        {answer && question && (
          <div class="copy">
            Copy as <Copy name="CSV" text={() => asCsv(answer.results)} />
            <Copy name="JSON" text={() => asJson(answer.results)} />
            <Copy name="curl" text={() => asCurl(question)} />
          </div>
        )}
        <div class={other !== null && second ? "columns" : ""}>
          <div>
            {found.map((result, index) => (
              <ResultView key={index} result={result} {...(other !== null && !whole ? { label: name(scorer) } : {})} />
            ))}
          </div>
          {other !== null && second && (
            <div>
              {second.results
                .filter((result) => !whole || result.hits.length > 0)
                .map((result, index) => (
                  <ResultView key={index} result={result} {...(whole ? {} : { label: name(other) })} />
                ))}
            </div>
          )}
        </div>
      </main>
      <footer>
        <a href="/openapi.json">interface</a> · This service uses the ESCO classification of the European Commission where a space
        is made of it.
      </footer>
    </>
  );
}

const root = document.getElementById("app");
if (root) render(<App />, root);
