/** Which room is open, in the address, so that back, forward and reload keep it. */

export const ROOMS = ["start", "dialogue", "editor", "scope", "corpus", "train", "check", "compose"] as const;
export type RoomName = (typeof ROOMS)[number];

function read(): RoomName {
  const named = location.hash.replace(/^#\/?/, "");
  return ROOMS.find((each) => each === named) ?? "start";
}

export const route = $state({ room: read() });

export function go(room: RoomName): void {
  location.hash = `/${room}`;
}

export function follow(): void {
  route.room = read();
}
