/** What a person chose for this page, kept in the browser: language, light or dark, the adapter. */

import { en } from "./en";
import { ru } from "./ru";

export type Key = keyof typeof en;
type Language = "en" | "ru";
type Theme = "auto" | "light" | "dark";

function kept(name: string): string | null {
  try {
    return localStorage.getItem(`loratelier.${name}`);
  } catch {
    return null;
  }
}

function keep(name: string, value: string): void {
  try {
    localStorage.setItem(`loratelier.${name}`, value);
  } catch {
    // A browser that keeps nothing still shows everything.
  }
}

const spoken: Language = navigator.language.startsWith("ru") ? "ru" : "en";

export const prefs = $state({
  language: (kept("language") as Language | null) ?? spoken,
  theme: (kept("theme") as Theme | null) ?? "auto",
  adapter: kept("adapter") ?? "",
});

export function apply(): void {
  document.documentElement.lang = prefs.language;
  if (prefs.theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = prefs.theme;
  keep("language", prefs.language);
  keep("theme", prefs.theme);
  keep("adapter", prefs.adapter);
}

/** A text of the page; `{name}` in it is replaced by what is given under that name. */
export function t(key: Key, given: Record<string, string | number> = {}): string {
  const text = (prefs.language === "ru" ? ru : en)[key];
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(given[name] ?? whole));
}

/** What the server calls a piece of work, in the page's language where it has words for it. */
export function working(what: string): string {
  const key = `work.${what}`;
  return key in en ? t(key as Key) : what;
}

export function percent(value: number, digits = 1): string {
  const format = new Intl.NumberFormat(prefs.language, { style: "percent", maximumFractionDigits: digits });
  if (value > 0 && value < 0.5 * 10 ** -(digits + 2)) return `<${format.format(10 ** -(digits + 2))}`;
  return format.format(value);
}

export function signed(value: number, digits = 1): string {
  return new Intl.NumberFormat(prefs.language, { style: "percent", maximumFractionDigits: digits, signDisplay: "exceptZero" }).format(value);
}

export function number(value: number, digits = 3): string {
  return new Intl.NumberFormat(prefs.language, { maximumSignificantDigits: digits }).format(value);
}

export function whole(value: number): string {
  return new Intl.NumberFormat(prefs.language).format(value);
}

export function time(seconds: number): string {
  const s = Math.max(0, Math.round(seconds));
  return s < 60 ? t("time.seconds", { n: s }) : t("time.minutes", { n: Math.floor(s / 60), s: s % 60 });
}

const glyphs: Record<string, string> = { " ": "·", "\n": "↵", "\t": "⇥", "\r": "␍" };

/** A token as a person can see it: blanks have glyphs. */
export function visible(token: string): string {
  return token === "" ? "∅" : token.replace(/[ \n\t\r]/g, (blank) => glyphs[blank] ?? blank);
}
