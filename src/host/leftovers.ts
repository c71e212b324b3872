// Commands go on when the daemon that started them is killed. Each has a mark in its environment, which its children inherit, so that the
// next daemon on the same directory finds them and sees them off before it looks at what they work on.
import { readdirSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import type { Log } from '#src/lib/log.ts';
import { sleep } from '#src/lib/wait.ts';
import { readKernelFile } from './kernel-files.ts';
import { environmentOf, isStillThere, type ProcessLife, processLife } from './process-life.ts';
import { sendSignal } from './signal.ts';

const MARK = 'LIGHTER_COMMAND';
/** Of commands that leave something in the background which is to stay. */
const LASTING_MARK = 'LIGHTER_STARTER';
/** A step of theirs is whole or not there, and what they do is done elsewhere: by the kernel, or zfs-fuse. They are soon ready. */
const TRANSACTIONS = /^(?:zfs|zpool|lvm|(?:lv|vg|pv)[a-z]+|dmsetup)$/u;
/** They serve the whole host, whoever's command started them. */
const HOST_DAEMONS = new Set(['dmeventd', 'lvmpolld']);
/** Its parent waits for the container, and is no longer called so once that is in the background. */
const STARTERS = new Set(['lxc-start', 'lxc-checkpoint']);
const FINISH_MS = 10_000;
const LIMIT_MS = 30_000;
const LOOK_MS = 20;
/** More than any program takes to begin: what has no environment after them has none. */
const START_LOOKS = 500;

/** What is still running of a killed daemon. */
interface Leftover extends ProcessLife {
  readonly program: string;
  /** It only has to be waited for. */
  readonly starts: boolean;
}

/** Of the commands of all daemons on this directory, which exists, and of no others on this kernel. */
export function commandMark(directory: string): string {
  const { dev, ino } = statSync(directory, { bigint: true });
  return `${dev}:${ino}`;
}

/** For the environment of a command. `lasting`: what it leaves in the background is to stay. */
export function markedBy(mark: string, { lasting }: { readonly lasting: boolean }): Readonly<Record<string, string>> {
  return { [lasting ? LASTING_MARK : MARK]: mark };
}

/**
 * Resolves when none is left. To be called before this daemon starts any, with no other daemon on the directory. Commands that are one
 * step of a volume manager may finish it; all others are killed at once. What even then does not end (a file system that hangs) is logged,
 * and left: a daemon that waited for it could serve nobody.
 */
export async function endLeftovers(
  mark: string,
  log: Log,
  { finishMs = FINISH_MS, limitMs = LIMIT_MS }: { readonly finishMs?: number; readonly limitMs?: number } = {},
): Promise<void> {
  const begin = performance.now();
  const looks = new Looks(mark);
  let isFirst = true;
  for (;;) {
    const left = await looks.next();
    if (left.length === 0) return;
    const commands = left.map(({ pid, program }) => `${program} (${pid})`).join(', ');
    if (isFirst) log.warn('a killed daemon left commands running', { commands });
    isFirst = false;
    const waitedMs = performance.now() - begin;
    if (waitedMs > limitMs) {
      log.error('commands of a killed daemon do not end', { commands });
      return;
    }
    for (const one of waitedMs > finishMs ? left : left.filter((each) => !mayFinish(each))) endNow(one);
    await sleep(LOOK_MS);
  }
}

/** Looks at all processes, again and again. */
class Looks {
  readonly #mark: string;
  #former: readonly Leftover[] = [];

  constructor(mark: string) {
    this.#mark = mark;
  }

  async next(): Promise<readonly Leftover[]> {
    for (let look = 0; ; look += 1) {
      const { left, isUnclear } = this.#look();
      if (left.length > 0 || !isUnclear || look === START_LOOKS) return left;
      await sleep(1);
    }
  }

  /** `isUnclear`: what is just being started may turn out to be a leftover. */
  #look(): { readonly left: readonly Leftover[]; readonly isUnclear: boolean } {
    const pids = readdirSync('/proc')
      .map(Number)
      .filter((pid) => pid > 0 && pid !== process.pid);
    const seen = pids.map((pid) => leftoverOf(pid, this.#mark));
    const found = seen.filter((one) => typeof one === 'object');
    // the memory of what ends, and with it the mark, is gone before its files are
    const ending = this.#former.filter((one) => isStillThere(one) && found.every(({ pid }) => pid !== one.pid));
    this.#former = [...found.filter(({ starts }) => !starts), ...ending];
    return { left: [...found, ...ending], isUnclear: seen.includes('unclear') };
  }
}

function mayFinish({ program }: Leftover): boolean {
  return TRANSACTIONS.test(program);
}

function endNow({ pid, starts }: Leftover): void {
  if (!starts) sendSignal(pid, 'SIGKILL');
}

function leftoverOf(pid: number, mark: string): Leftover | 'unclear' | undefined {
  const environment = environmentOf(pid);
  if (environment === 'not yet') return isHere(pid) ? 'unclear' : undefined;
  const starts = environment.includes(`${LASTING_MARK}=${mark}`);
  if (!starts && !environment.includes(`${MARK}=${mark}`)) return undefined;
  const life = processLife(pid);
  const program = basename(readKernelFile(`/proc/${pid}/cmdline`)?.split('\0')[0] ?? '');
  return life && isHere(pid) && isToEnd(program, starts) ? { ...life, program, starts } : undefined;
}

function isToEnd(program: string, starts: boolean): boolean {
  return starts ? STARTERS.has(program) : !HOST_DAEMONS.has(program);
}

/** What runs in a container says of itself what it likes; none of ours does. */
function isHere(pid: number): boolean {
  const status = readKernelFile(`/proc/${pid}/status`) ?? '';
  return /^NSpid:\t\d+$/mu.test(status);
}
