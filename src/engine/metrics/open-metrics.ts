// Metrics as text (OpenMetrics 1.0): families in order, samples with labels, and the end mark.

export type MetricType = 'counter' | 'gauge';

export interface MetricFamily {
  readonly name: string;
  readonly type: MetricType;
  readonly help: string;
}

export type Labels = Readonly<Record<string, string>>;

export class MetricSet {
  readonly #families = new Map<string, { readonly family: MetricFamily; readonly lines: string[] }>();

  /** Undefined values are left out: what the host cannot tell is not zero. */
  add(family: MetricFamily, value: number | undefined, labels: Labels = {}): void {
    if (value === undefined || !Number.isFinite(value)) return;
    let entry = this.#families.get(family.name);
    if (!entry) {
      entry = { family, lines: [] };
      this.#families.set(family.name, entry);
    }
    entry.lines.push(`${family.name}${labelText(labels)} ${value}`);
  }

  text(): string {
    const families = [...this.#families.values()].toSorted((left, right) => {
      return left.family.name < right.family.name ? -1 : 1;
    });
    const blocks = families.map(({ family: { name, type, help }, lines }) => {
      return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines].join('\n');
    });
    return [...blocks, '# EOF', ''].join('\n');
  }
}

function labelText(labels: Labels): string {
  const entries = Object.entries(labels);
  if (entries.length === 0) return '';
  return `{${entries.map(([name, value]) => `${name}="${escaped(value)}"`).join(',')}}`;
}

function escaped(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n');
}
