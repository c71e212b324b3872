// Examines this machine: can it run containers, how many, and what is in the way?
import type { Doctor, ExamineOptions, Finding } from '#src/lib/finding.ts';
import type { Host } from '../host.ts';
import { examineCheckpoints } from './checkpoints.ts';
import { examineIds } from './ids.ts';
import { examineCgroups, examineFileSystems, examineKernel } from './kernel.ts';
import { examineLimits, raiseLimits } from './limits.ts';
import { examineTools } from './tools.ts';

export class HostDoctor implements Doctor {
  readonly #host: Host;
  readonly #stateFolder: string;

  constructor(host: Host, stateFolder: string) {
    this.#host = host;
    this.#stateFolder = stateFolder;
  }

  async examine(signal: AbortSignal, { criuPath = '' }: ExamineOptions = {}): Promise<readonly Finding[]> {
    const host = this.#host;
    const parts = await Promise.all([
      examineKernel(host, this.#stateFolder),
      examineCgroups(host),
      examineFileSystems(host),
      examineIds(host),
      examineLimits(host),
      examineTools(host),
      examineCheckpoints(host, criuPath, signal),
    ]);
    return parts.flat();
  }

  async raiseLimits(): ReturnType<Doctor['raiseLimits']> {
    return raiseLimits(this.#host);
  }
}
