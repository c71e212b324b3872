// Kill -9 at the steps of every operation: the next start finishes it or undoes it, and the same request works then. A sample by
// default; FAULT_STEPS=all (or 40-60) takes every step of every operation (npm run check:faults), kinds each kind of step once; FAULT_DRIVER
// and FAULT_ONLY choose.
// An operation that was undone is requested again by the next step's turn, which goes further by one step; the last of all by its own.
import { appendFileSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { timeFactor } from '#test/time-factor.ts';
import { describeWith } from '../../support.ts';
import { type FaultDriver, FaultMachine, type View } from './machine.ts';
import { type FaultOperation, OPERATIONS } from './operations.ts';

/** `all`, those from one number to another (40-60), or of each kind the first: `kinds`. */
const STEPS = process.env['FAULT_STEPS'] ?? '';
const KINDS = STEPS === 'kinds';
const ALL = STEPS === 'all' || KINDS || STEPS.includes('-');
const [FIRST = 1, LAST = Infinity] = /^(\d+)-(\d+)$/u.exec(STEPS)?.slice(1).map(Number) ?? [];
const DRIVERS = (process.env['FAULT_DRIVER'] ?? (ALL ? 'overlay,dir,btrfs,zfs' : 'overlay,btrfs')).split(',');
const ONLY = new RegExp(process.env['FAULT_ONLY'] ?? '', 'u');
const COMMANDS: Readonly<Record<string, readonly string[]>> = { btrfs: ['mkfs.btrfs'], zfs: ['zpool', 'zfs'] };
/** Each kind of recovery once. */
const SAMPLE: Readonly<Record<string, readonly string[]>> = {
  overlay: ['create from an image', 'rename', 'delete', 'delete of a pool'],
  btrfs: ['restore', 'copy of a snapshot', 'delete of a volume', 'create of a pool'],
};
/** How long what goes on after a start may take. */
const SETTLE_MS = 4000 * timeFactor();

for (const driver of DRIVERS as FaultDriver[]) {
  const commands = ['lxc-start', 'busybox', ...(COMMANDS[driver] ?? [])];
  describeWith({ root: true, commands }, `kill -9 at each step, on ${driver}`, () => {
    let machine: FaultMachine;

    beforeAll(async () => {
      machine = await FaultMachine.make(driver);
    });
    afterAll(async () => {
      await machine[Symbol.asyncDispose]();
      await FaultMachine.end();
    });

    const sample = SAMPLE[driver] ?? [];
    const chosen = OPERATIONS.filter(({ name, drivers }) => {
      const has = drivers?.includes(driver) ?? true;
      return has && ONLY.test(name) && (ALL || sample.includes(name));
    });
    it.each(chosen.map((operation) => [operation.name, operation] as const))(
      '%s',
      { timeout: 3_600_000 },
      async (_name, operation) => {
        const bad: string[] = [];
        await using trial = new Trial(() => machine, operation);
        await trial.begin();
        const steps = trial.chosen(ALL);
        const begin = Date.now();
        await machine.restart(steps[0] ?? 0);
        for (const [index, step] of steps.entries()) {
          const next = steps[index + 1] ?? 0;
          const problem = await trial.at(step, next);
          if (problem === '') continue;
          bad.push(problem);
          note(`${driver}: ${operation.name}: ${problem}`);
          await keepLog(machine);
          await machine[Symbol.asyncDispose]().catch(() => undefined);
          machine = await FaultMachine.make(driver);
          await trial.begin();
          await machine.restart(next);
        }

        const seconds = Math.round((Date.now() - begin) / 1000);
        note(`${driver}: ${operation.name}: ${steps.length} steps, ${bad.length} bad, ${seconds} s`);

        expect(bad).toEqual([]);
      },
    );
  });
}

class Trial implements AsyncDisposable {
  readonly #machine: () => FaultMachine;
  readonly #operation: FaultOperation;
  #before: View = [];
  #after: View = [];
  #steps: readonly string[] = [];

  constructor(machine: () => FaultMachine, operation: FaultOperation) {
    this.#machine = machine;
    this.#operation = operation;
  }

  async begin(): Promise<void> {
    const machine = this.#machine();
    await machine.restart(0);
    await this.#operation.prepare?.(machine);
    this.#before = await this.#quiet();
    this.#steps = await machine.steps(() => this.#operation.request(machine));
    this.#after = await this.#quiet();
    await this.#operation.back(machine);
    await this.#becomes(this.#before);
  }

  /** All, or one in the middle. */
  chosen(all: boolean): readonly number[] {
    const count = this.#steps.length;
    if (!all) return [Math.ceil((count * 2) / 3)];
    const numbers = Array.from({ length: count }, (_none, index) => index + 1);
    const kinds = this.#steps.map(kindOf);
    return numbers.filter((number) => {
      const isFirst = kinds.indexOf(kinds[number - 1] ?? '') === number - 1;
      return number >= FIRST && number <= LAST && (isFirst || !KINDS);
    });
  }

  /** Empty, or what is wrong after a kill at this step, which the daemon waits for; the next daemon waits for the next one. */
  async at(step: number, next: number): Promise<string> {
    const machine = this.#machine();
    const what = `${step} of ${this.#steps.length} (${this.#steps[step - 1] ?? ''})`;
    try {
      await machine.dies(() => this.#operation.request(machine));
      await machine.restart(next);
      const state = await this.#settled();
      if (!(await machine.stillRuns())) return `${what}: the container that ran does not any more`;
      if (state === 'undone' && next !== 0) return '';
      if (state !== 'done') {
        await this.#operation.request(machine);
        await this.#becomes(this.#after);
      }
      await this.#operation.back(machine);
      await this.#becomes(this.#before);
      return '';
    } catch (error) {
      return `${what}: ${error instanceof Error ? error.message : String(error)}`;
    }
  }

  async #settled(): Promise<'done' | 'undone' | 'between'> {
    const end = Date.now() + SETTLE_MS;
    for (;;) {
      const now = await this.#view();
      if (same(now, this.#before)) return 'undone';
      if (same(now, this.#after)) return 'done';
      if (this.#operation.resumable === true) return 'between';
      if (Date.now() < end) await sleep(100);
      else {
        const text = `neither done nor undone: to before: ${difference(now, this.#before)}; to after: ${difference(now, this.#after)}`;
        throw new Error(text);
      }
    }
  }

  async #becomes(wanted: View): Promise<void> {
    const end = Date.now() + SETTLE_MS;
    for (;;) {
      const now = await this.#view();
      if (same(now, wanted)) return;
      if (Date.now() > end) throw new Error(`not as it was: ${difference(now, wanted)}`);
      await sleep(100);
    }
  }

  /** When nothing changes any more. */
  async #quiet(): Promise<View> {
    for (let last = await this.#view(); ; ) {
      await sleep(400);
      const now = await this.#view();
      if (same(now, last)) return now;
      last = now;
    }
  }

  async #view(): Promise<View> {
    const machine = this.#machine();
    const seen = await machine.view();
    return this.#operation.look ? [...seen, `seen: ${await this.#operation.look(machine)}`] : seen;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#operation.end?.(this.#machine());
  }
}

/** What is written, moved or removed is told apart by its name, commands by their first two words. */
function kindOf(step: string): string {
  const [first = '', second = '', third = ''] = step.split(' ');
  if (['commit', 'exchange'].includes(first)) return step;
  const name = basename(step).replaceAll(/[0-9a-f]{8}[0-9a-f-]*/gu, 'ID');
  if (['open', 'rename', 'rm', 'rmdir', 'createWriteStream'].includes(first)) return `${first} ${name}`;
  return first === 'started:' ? `${first} ${second} ${third}` : `${first} ${second.startsWith('/') ? '' : second}`;
}

function same(left: View, right: View): boolean {
  return left.length === right.length && left.every((line, index) => line === right[index]);
}

function difference(now: View, wanted: View): string {
  const more = now.filter((line) => !wanted.includes(line)).map((line) => `+${line}`);
  const less = wanted.filter((line) => !now.includes(line)).map((line) => `-${line}`);
  return [...more, ...less].join(' ') || 'some twice';
}

/** Beside the notes: it goes with the machine. */
async function keepLog({ daemon }: FaultMachine): Promise<void> {
  const file = process.env['FAULT_LOG'];
  if (file !== undefined) await copyFile(join(daemon.root, 'daemon.log'), `${file}.${basename(daemon.root)}`);
}

/** At once: a run of everything is long. */
function note(line: string): void {
  const file = process.env['FAULT_LOG'];
  if (file !== undefined) appendFileSync(file, `${line}\n`);
}
