// What an examination of this machine finds.

/** One line of `lighter doctor`. */
export interface Finding {
  readonly area: 'kernel' | 'cgroups' | 'file systems' | 'ids' | 'limits' | 'tools' | 'checkpoints';
  readonly what: string;
  /** `bad`: containers do not run without it; `note`: less than could be. */
  readonly state: 'ok' | 'note' | 'bad';
  readonly found: string;
  /** What to do about it; empty when nothing is to be done. */
  readonly advice: string;
  /** How many containers with systemd it allows, about; absent: it sets no such limit. */
  readonly containers?: number;
}

/** A setting of the kernel that was raised. */
export interface Raised {
  readonly key: string;
  readonly from: number;
  readonly to: number;
}

export interface ExamineOptions {
  /** Of the engine's configuration; absent: the program in PATH. */
  readonly criuPath?: string;
}

/** Examines the machine that it runs on. */
export interface Doctor {
  examine(signal: AbortSignal, options?: ExamineOptions): Promise<readonly Finding[]>;
  /** Sets what is lower than it should be, now and for the next boots. AppError 'forbidden' without the right to. */
  raiseLimits(): Promise<{ readonly raised: readonly Raised[]; readonly file: string }>;
}
