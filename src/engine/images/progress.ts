// Progress in the metadata of operations, in the words that clients print.
const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB'];
const EVERY_MS = 250;

/** "235.81MB". */
export function byteSize(bytes: number): string {
  if (bytes < 1000) return `${Math.trunc(bytes)}B`;
  const power = Math.min(Math.floor(Math.log10(bytes) / 3), UNITS.length - 1);
  return `${(bytes / 1000 ** power).toFixed(2)}${UNITS[power]}`;
}

export interface Progress {
  readonly percent: number | undefined;
  readonly bytes: number;
  readonly bytesPerSecond: number;
}

/** Counts bytes and tells about them a few times a second. */
export class ProgressMeter {
  readonly #tell: (progress: Progress) => void;
  readonly #total: number | undefined;
  readonly #started = Date.now();
  #bytes = 0;
  #told = 0;

  constructor(tell: (progress: Progress) => void, totalBytes?: number) {
    this.#tell = tell;
    this.#total = totalBytes;
  }

  add(bytes: number): void {
    this.#bytes += bytes;
    const now = Date.now();
    if (now - this.#told < EVERY_MS) return;
    this.#told = now;
    const seconds = Math.max(now - this.#started, 1) / 1000;
    this.#tell({ bytes: this.#bytes, percent: this.#percent(), bytesPerSecond: this.#bytes / seconds });
  }

  #percent(): number | undefined {
    if (this.#total === undefined || this.#total <= 0) return undefined;
    return Math.min(Math.floor((this.#bytes * 100) / this.#total), 100);
  }
}

/** What a stage of work shows: `STAGE_progress` for people, `progress` for programs. */
export function stageProgress(stage: string, words: string, progress: Progress): Readonly<Record<string, unknown>> {
  const { percent, bytes, bytesPerSecond } = progress;
  const speed = `${byteSize(bytesPerSecond)}/s`;
  const amount = percent === undefined ? byteSize(bytes) : `${percent}%`;
  return {
    [`${stage}_progress`]: `${words}: ${amount} (${speed})`,
    progress: {
      stage,
      ...(percent === undefined ? {} : { percent: String(percent) }),
      processed: String(bytes),
      speed: String(Math.round(bytesPerSecond)),
    },
  };
}
