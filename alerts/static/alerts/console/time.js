// Times in words, by the clock and in the time zone of the page's reader.

const SECOND = 1_000; // milliseconds
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

let offset = 0; // milliseconds by which the server's clock is ahead of this browser's, which may be wrong

/** The time by the server's clock, in milliseconds. */
export function now() {
  return Date.now() + offset;
}

/** Takes the time from an answer of the server. */
export function setClock(iso) {
  offset = Date.parse(iso) - Date.now();
}

const exactFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

/** `moment` to the second, with the zone. */
export function exact(moment) {
  return exactFormat.format(moment);
}

/** A length of time in its largest unit: "12 s", "5 min", "3 h", "2 d". */
export function span(milliseconds) {
  const length = Math.abs(milliseconds);
  if (length < MINUTE) return `${Math.floor(length / SECOND)} s`;
  if (length < HOUR) return `${Math.floor(length / MINUTE)} min`;
  if (length < DAY) return `${Math.floor(length / HOUR)} h`;
  return `${Math.floor(length / DAY)} d`;
}

const UNITS = { m: MINUTE, h: HOUR, d: DAY };

/** The milliseconds of "15m", "24h" or "7d"; of anything else null. */
export function length(text) {
  const [, number, unit] = /^(\d{1,3})([mhd])$/.exec(text ?? "") ?? [];
  return unit ? number * UNITS[unit] : null;
}

/** How long ago `moment` was. A moment in the future, because a clock is slightly off, is "just now". */
export function ago(moment) {
  const age = now() - moment;
  return age < SECOND ? "just now" : `${span(age)} ago`;
}
