/** What the server sends, as far as the page reads it. */

export interface BarEvent { bar: number; what: string; total: number | null; done: number; note: string; left: number | null }

export interface Job {
  id: string;
  kind: "corpus" | "train" | "check";
  title: string;
  args: Record<string, unknown>;
  state: "waiting" | "running" | "stopping" | "stopped" | "done" | "failed";
  created: string;
  resume: boolean;
  error: string | null;
  mend: string | null;
  bars: BarEvent[];
  result: Record<string, unknown> | null;
}

export type Said = { en: string; ru: string };

export interface Finding {
  name: string; title: Said; figure: number | null; interval: [number, number] | null;
  threshold: number | null; passed: boolean; noise: boolean; sentence: Said; remedy: Said | null;
}

export interface AdapterFacts {
  name: string;
  error: string | null;
  base?: string | null;
  rank?: number;
  sites?: number;
  parameters?: number;
  strength?: number | null;
  created?: string | null;
  metrics?: Record<string, number>;
  verdict?: { findings: Finding[]; created: string; seconds: number } | null;
}

export interface CorpusFacts { name: string; error: string | null; counts?: Record<string, number>; format?: string; learn?: string }

export interface Store {
  home: string;
  adapters: AdapterFacts[];
  bases: { spec: string; source: string; present: boolean; bytes: number }[];
  corpora: CorpusFacts[];
}

export interface Move { id: number; token: string; before: number; after: number; rank_before: number; rank_after: number }
export interface Position { index: number; id: number; token: string; kl: number; rose: Move[]; fell: Move[]; next: Move | null }
export interface Reading { tokens: string[][]; probability: number[][]; decided: number[] }

export interface Seen {
  base: string;
  adapter: string;
  before: string | null;
  effect: boolean;
  positions: Position[];
  continuations: Record<string, { text: string; positions: Position[]; parting: [number, number] | null; ended: boolean }>;
  attention: { tokens: string[]; layers: number[]; queries: number[]; by_head: number[][]; sentences: string[] } | null;
  lens: { positions: number[]; tokens: string[]; before: Reading; after: Reading; kl: number[][]; sentences: string[] } | null;
  sites: { target: string; unit: string; total: number; residual: number; shares: Record<string, number>; notes: string[] } | null;
  summary: { mean_kl: number; max_kl: number; sentences: string[] };
}

export interface Looked { id: string; seen: Seen; pictures: { name: string; says: [string, string] }[] }

export interface Bar { id: number; token: string; before: number; now: number }
export interface Field { tokens: string[]; at: number; bars: Bar[]; rest: { before: number; now: number }; kl: number[]; added: number | null }

export interface Step { file: string; kind: "edit" | "sites"; prompt?: string; goals?: [string, number, number, number][]; met?: boolean; sites?: Record<string, number> }
export interface DraftView {
  what: string; base: string; steps: Step[]; at: number; rank: number; edits: string[];
  sites: { site: string; rank: number; norm: number }[];
}
export interface Spread { mean: number; max: number; flips: number; places: number }
export interface Report { met: boolean; why: string; seconds: number; norm: number; rank: number; site: string; sentences: string[]; locality: Spread & { kinds?: Record<string, Spread> } }

export interface Turn {
  role: "user" | "assistant"; content: string; worn: Record<string, number>; reason: string | null; reason_ru: string | null;
  seconds: number | null; tokens: number | null; stopped: string | null;
}
export interface Lane { id: number; adapter: string | null; strength: number; turns: Turn[] }
export interface Talk { base: string; lanes: Lane[] }
