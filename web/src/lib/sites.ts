/** Where a site is: its layer, and its module by the short name that recipes use. */

const ORDER = ["q", "k", "v", "o", "gate", "up", "down"];

export function placeOf(site: string): { row: string; column: string } {
  const [, layer = "·", module = site] = /layers\.(\d+)\.(.+)$/.exec(site) ?? [];
  return { row: layer, column: (module.split(".").at(-1) ?? module).replace(/_proj$/, "") };
}

export function rowsOf(cells: { row: string }[]): string[] {
  return [...new Set(cells.map((cell) => cell.row))].sort((a, b) => Number(a) - Number(b));
}

export function columnsOf(cells: { column: string }[]): string[] {
  const at = (name: string) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
  return [...new Set(cells.map((cell) => cell.column))].sort((a, b) => at(a) - at(b));
}
