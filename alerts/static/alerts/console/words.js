// What is said in words in more than one place.

export const SEVERITIES = ["critical", "high", "medium", "low", "info"];
export const STATUSES = { new: "New", acknowledged: "Acknowledged", in_progress: "In progress", closed: "Closed" };
export const DISPOSITIONS = {
  true_positive: "True positive",
  false_positive: "False positive",
  benign: "Benign",
  duplicate: "Duplicate",
};

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** "9,999", "1.3M": what fits in a column. */
export function brief(number) {
  return number < 10_000 ? number.toLocaleString() : compact.format(number);
}

/** "1 group", "2,000 groups". */
export function counted(number, singular, plural = `${singular}s`) {
  return `${number.toLocaleString()} ${number === 1 ? singular : plural}`;
}

/** "10.0.0.1 → 10.0.0.2", or what is known of it; empty without an address. */
export function route({ source_ip: source, destination_ip: destination }) {
  if (source && destination) return `${source} → ${destination}`;
  if (source) return `from ${source}`;
  return destination ? `to ${destination}` : "";
}

/** "Closed as false positive", "Acknowledged". */
export function state({ status, disposition }) {
  return disposition ? `${STATUSES[status]} as ${DISPOSITIONS[disposition].toLowerCase()}` : STATUSES[status];
}
