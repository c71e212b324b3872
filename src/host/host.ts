// The machine behind one port: everything that runs a command or touches a file outside our own state goes through it.
import type { Btrfs } from './btrfs/btrfs.ts';
import type { IdMapRange } from './id-map.ts';
import type { Links } from './links.ts';
import type { Mounts } from './mounts.ts';
import type { Ports } from './ports.ts';
import type { ProjectQuotas } from './project-quota.ts';

export type Argv = readonly [string, ...string[]];

export interface RunOptions {
  readonly signal?: AbortSignal;
  /** Milliseconds; default 60 000, Infinity for none. The process is killed (SIGKILL, whole group) when it is over. */
  readonly timeoutMs?: number;
  readonly input?: string | Uint8Array | NodeJS.ReadableStream;
  /** The program's standard input is this file itself: opened by us, whatever the program may do. */
  readonly inputFile?: string;
  /** Its standard error goes to the end of this file: for one that leaves a process behind, which would keep ours open. */
  readonly errorFile?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Default "/". */
  readonly cwd?: string;
  /** Gets all that the program says on its standard error; the result has the end of it. */
  readonly onStderr?: (chunk: Buffer) => void;
  /** Exit codes that are not errors; default [0]. */
  readonly okExitCodes?: readonly number[];
  /** Gives the program two more descriptors: 3 to read from us, 4 to write to us. */
  readonly withRelay?: boolean;
  /** What it leaves in the background is to stay; all else of a daemon that was killed is ended by the next one. */
  readonly lasting?: boolean;
}

export interface RunResult {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
}

/** A command that is still running; its output is a stream. */
export interface RunningCommand {
  readonly pid: number;
  readonly stdin: NodeJS.WritableStream;
  /** To be read to its end, however slowly, or destroyed: until then a program that said anything is not done. */
  readonly stdout: NodeJS.ReadableStream;
  /** With `withRelay`. */
  readonly relay?: { readonly input: NodeJS.WritableStream; readonly output: NodeJS.ReadableStream };
  /** Resolves when the process is gone; rejects with CommandError as run() does. */
  readonly done: Promise<Omit<RunResult, 'stdout'>>;
}

export interface FileStatus {
  readonly kind: 'file' | 'directory' | 'link' | 'other';
  /** Permission bits with setuid, setgid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly sizeBytes: number;
}

export interface DeviceNode {
  readonly kind: 'char' | 'block';
  readonly major: number;
  readonly minor: number;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

export interface FileSystemUsage {
  readonly totalBytes: number;
  readonly usedBytes: number;
  /** For those who are not root; file systems keep some for themselves. */
  readonly availableBytes: number;
  readonly inodesTotal: number;
  readonly inodesUsed: number;
}

/** Ids a tree has and ids it shall have; null is no map. */
export interface OwnerShift {
  readonly from: IdMapRange | null;
  readonly to: IdMapRange | null;
}

export interface Host {
  readonly btrfs: Btrfs;
  readonly links: Links;
  readonly ports: Ports;
  readonly mounts: Mounts;
  readonly projectQuotas: ProjectQuotas;
  /** Never a shell. Rejects with CommandError on a bad exit code, and never before the process is gone. */
  run(argv: Argv, options?: RunOptions): Promise<RunResult>;
  /** Like run(), for commands whose input or output is streamed. */
  start(argv: Argv, options?: Omit<RunOptions, 'input'>): RunningCommand;
  /** Rejects with AppError 'not_found' when absent. */
  readFile(path: string): Promise<string>;
  /** The same for what is no text. */
  readBytes(path: string): Promise<Uint8Array>;
  /** Writes atomically (temporary name, rename) unless the path is in /proc, /sys or a cgroup. */
  writeFile(path: string, data: string | Uint8Array, options?: { readonly mode?: number }): Promise<void>;
  exists(path: string): Promise<boolean>;
  /** Names in a directory; [] when the directory is absent. */
  list(path: string): Promise<readonly string[]>;
  /** Creates with parents; no error when present. `fresh`: without parents, and AppError 'conflict' when present. */
  makeDirectory(path: string, options?: { readonly mode?: number; readonly fresh?: boolean }): Promise<void>;
  /** Of the file itself, links not followed. Rejects with AppError 'not_found' when absent. */
  status(path: string): Promise<FileStatus>;
  /** Links not followed. setuid and setgid of files are lost, as the kernel does it. */
  chown(path: string, uid: number, gid: number): Promise<void>;
  /** A device node, with its owner. AppError 'conflict' when something is there. */
  makeNode(path: string, node: DeviceNode): Promise<void>;
  /** Permission bits with setuid, setgid and sticky; follows links, so for what we made ourselves. */
  setMode(path: string, mode: number): Promise<void>;
  /** rename(2). Rejects with AppError 'conflict' when the new path is a directory with something in it. */
  rename(path: string, newPath: string): Promise<void>;
  /** Lets two paths of one file system change places, atomically. */
  exchange(path: string, other: string): Promise<void>;
  /** Copies a file or a small tree without owners and extended attributes; links stay links. For whole roots there is cp(1). */
  copyTree(path: string, newPath: string): Promise<void>;
  /** Of the file system that holds the path. */
  usage(path: string): Promise<FileSystemUsage>;
  /**
   * Re-owns a tree that nobody uses: owners, ACLs and file capabilities, setuid kept, links not followed. Ids outside `from` stay.
   * Not atomic: do it to what is not published yet.
   */
  shiftOwners(path: string, shift: OwnerShift, signal: AbortSignal): Promise<void>;
  /** An extended attribute of a file, links not followed; undefined: it has none, as where the file system keeps none. */
  attribute(path: string, name: string): Promise<string | undefined>;
  /** AppError 'unsupported' where the file system keeps none. */
  setAttribute(path: string, name: string, value: string): Promise<void>;
  /** Removes a tree without following links; no error when absent. AppError 'conflict', touching nothing, with mounts in it. */
  removeTree(path: string): Promise<void>;
}
