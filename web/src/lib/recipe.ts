/** What a training begins with where a person sets nothing: for the demo base, minutes on two cores. */
export function quick(base: string): Record<string, unknown> {
  return base === "demo" ? { layers: "10-29", epochs: 2, max_steps: 80, learning_rate: 1e-3, batch_tokens: 512 } : {};
}
