// IP addresses and networks, compared as the database compares them: as numbers, never as text.

/** `{bits, value}` of an address as the server writes it, or null if it is none. */
function parse(text) {
  if (/^\d+(\.\d+){3}$/.test(text)) return { bits: 32, value: join(text.split("."), 8n) };
  if (!text.includes(":")) return null;
  const [left, right] = text
    .replace(/[\d.]+$/, pairs)
    .split("::")
    .map(words);
  const gap = right ? Array(Math.max(0, 8 - left.length - right.length)).fill("0") : [];
  return {
    bits: 128,
    value: join(
      [...left, ...gap, ...(right ?? [])].map((word) => `0x${word}`),
      16n,
    ),
  };
}

// The last 32 bits may be written like an IPv4 address.
function pairs(end) {
  if (!end.includes(".")) return end;
  const [a, b, c, d] = end.split(".").map(Number);
  return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
}

function words(text) {
  return text === "" ? [] : text.split(":");
}

function join(parts, bits) {
  return parts.reduce((value, part) => (value << bits) | BigInt(part), 0n);
}

/** A function that says whether an address is in `network`, which is an address or a network such as 10.0.0.0/8. */
export function network(text) {
  const [address, length] = text.split("/");
  const wanted = parse(address);
  if (!wanted) return () => false;
  const shift = BigInt(wanted.bits - Number(length ?? wanted.bits));
  return (candidate) => {
    const given = candidate && parse(candidate);
    return Boolean(given) && given.bits === wanted.bits && given.value >> shift === wanted.value >> shift;
  };
}
