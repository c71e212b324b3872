// For crash tests: counts what changes the machine or the database, and kills this process before one of those steps. Inert, and
// nothing is replaced, unless the daemon was started with LIGHTER_FAULT; no request can reach it.
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { writeSync } from 'node:fs';
import { AppError } from '#src/lib/errors.ts';

export interface Faults {
  /** Counts from one again: what follows is the operation under test. */
  begin(): void;
}

export interface FaultOptions {
  /** Which step is not reached; 0 only counts. */
  readonly step: number;
  /** Whatever comes after must not happen. */
  readonly die: (what: string) => void;
  readonly report: (line: string) => void;
}

let reached: ((what: string) => void) | undefined;

/** Just before a step; `what` tells people and tests which. */
export function faultPoint(what: string): void {
  reached?.(what);
}

/** Commands that change nothing are no steps: what is killed before one is killed before the next step as well. */
const READS = [
  /^(?:findmnt|blkid|getent|lxc-info|lxc-ls|stat|uname|lsblk|df|du|tail) /u,
  /^(?:zfs|zpool) (?:list|get|version|status|upgrade)\b/u,
  /^losetup (?:-j|-a|-l|--list|--json)/u,
  /--version\b/u,
];

/** Before a command starts. */
export function commandPoint(argv: readonly string[]): void {
  if (reached && !isRead(argv)) reached(argv.join(' '));
}

/** When it has started: it goes on without us. */
export function startedPoint(argv: readonly string[]): void {
  if (reached && !isRead(argv)) reached(`started: ${argv.join(' ')}`);
}

function isRead(argv: readonly string[]): boolean {
  const text = `${argv.join(' ')} `;
  return READS.some((pattern) => pattern.test(text));
}

/** Once, at the start of the process. */
export function armFaults({ step, die, report }: FaultOptions): Faults {
  let count = 0;
  let counting = false;
  let last = '';
  const onStep = (what: string): void => {
    // Many files of one tree are one step: which of them is the last one makes no difference.
    if (!counting || what === last) return;
    last = what;
    count += 1;
    report(`fault step ${count}: ${what}`);
    if (count === step) die(what);
  };
  reached = onStep;
  watchFiles();
  return {
    begin: () => {
      count = 0;
      last = '';
      counting = true;
      report('fault steps begin');
    },
  };
}

/** What LIGHTER_FAULT says: a number, or `count`. */
export function faultStep(text: string): number {
  if (text === 'count') return 0;
  if (!/^[1-9]\d*$/u.test(text))
    throw new AppError('invalid', `LIGHTER_FAULT is neither a number nor "count": ${text}`);
  return Number(text);
}

/** On standard error, and at once. */
export function reportFault(line: string): void {
  writeSync(2, `${line}\n`);
}

type Work = (...args: unknown[]) => unknown;

const CHANGES = [
  'appendFile',
  'chmod',
  'chown',
  'copyFile',
  'cp',
  'lchown',
  'link',
  'lutimes',
  'mkdir',
  'mkdtemp',
  'open',
  'rename',
  'rm',
  'rmdir',
  'symlink',
  'truncate',
  'unlink',
  'utimes',
  'writeFile',
] as const;

/** The engine changes files with Node's own functions, too. Whoever imported them before sees the replacements. */
function watchFiles(): void {
  const fs = createRequire(import.meta.url)('node:fs') as Record<string, unknown>;
  const promises = fs['promises'] as Record<string, Work>;
  for (const name of CHANGES) {
    watch(promises, name);
    watch(fs as Record<string, Work>, `${name}Sync`);
  }
  watch(fs as Record<string, Work>, 'createWriteStream');
  syncBuiltinESMExports();
}

function watch(functions: Record<string, Work>, name: string): void {
  const original = functions[name];
  if (!original) return;
  functions[name] = (...args) => {
    const what = describe(name, args);
    if (what !== undefined) faultPoint(what);
    return original.apply(functions, args);
  };
}

/** undefined: it is no step. */
function describe(name: string, args: readonly unknown[]): string | undefined {
  const call = name.replace(/Sync$/u, '');
  const path = String(args[0]);
  if (call === 'open' && !isWrite(args[1])) return undefined;
  if (/^\/(?:sys|dev)\//u.test(path)) return undefined;
  // Descriptors of trees that nobody else sees yet, or that are a container's own.
  if (path.startsWith('/proc/')) return /\/fd\/\d+/u.test(path) ? 'files below a descriptor' : undefined;
  return ['rename', 'cp', 'copyFile', 'link'].includes(call) ? `${call} ${path} ${String(args[1])}` : `${call} ${path}`;
}

const WRITING_FLAGS = 0o3 | 0o100;

function isWrite(flags: unknown): boolean {
  if (typeof flags === 'number') return (flags & WRITING_FLAGS) !== 0;
  return typeof flags === 'string' && /[wa+]/u.test(flags);
}
