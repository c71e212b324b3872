// The file systems that volumes can have: how they are made and mounted, and how they grow and shrink.
import { AppError } from '#src/lib/errors.ts';
import { CommandError } from '#src/host/command-error.ts';
import type { Argv, Host } from '#src/host/host.ts';

const LIMIT_MS = 30 * 60_000;

interface Resizing {
  readonly host: Pick<Host, 'run'>;
  readonly device: string;
  readonly signal: AbortSignal;
}

export interface FileSystem {
  /** On a device that reads as zeros. */
  make(device: string): readonly Argv[];
  /** Besides those of the user. */
  readonly options: readonly string[];
  /** For one that is not written to, and that nobody may repair on the way. */
  readonly readonlyOptions: readonly string[];
  /** To all of its device; it is mounted. */
  grow(device: string, path: string): Argv;
  /** It is not mounted. Absent: it cannot. */
  readonly shrink?: (sizeBytes: number, where: Resizing) => Promise<void>;
}

const ext4: FileSystem = {
  // Nothing is written where zeros are read anyway: neither now nor by the kernel, later and in every clone.
  make: (device) => [
    ['mkfs.ext4', '-q', '-E', 'nodiscard,assume_storage_prezeroed=1', '--', device],
    ['mkfs.ext4', '-q', '-E', 'nodiscard,lazy_itable_init=0,lazy_journal_init=0', '--', device], // before e2fsprogs 1.47
  ],
  options: [],
  readonlyOptions: ['noload'],
  grow: (device) => ['resize2fs', '--', device],
  shrink: shrinkExt4,
};

const xfs: FileSystem = {
  make: (device) => [['mkfs.xfs', '-q', '-K', '--', device]],
  options: ['nouuid'], // clones are the same to it
  readonlyOptions: ['norecovery'],
  grow: (_device, path) => ['xfs_growfs', '--', path],
};

export const FILE_SYSTEMS = { ext4, xfs } as const satisfies Readonly<Record<string, FileSystem>>;

/** AppError 'unsupported' for one that we know nothing of. */
export function fileSystem(name: string): FileSystem {
  const found = (FILE_SYSTEMS as Readonly<Record<string, FileSystem>>)[name];
  if (!found)
    throw new AppError('unsupported', `file system ${JSON.stringify(name)} of a logical volume is not supported`);
  return found;
}

export async function makeFileSystem(
  host: Pick<Host, 'run'>,
  name: string,
  device: string,
  signal: AbortSignal,
): Promise<void> {
  const [first, ...others] = fileSystem(name).make(device);
  for (const argv of [first, ...others]) {
    if (!argv) continue;
    try {
      await host.run(argv, { signal, timeoutMs: LIMIT_MS });
      return;
    } catch (error) {
      if (argv === others.at(-1) || others.length === 0 || !isUnknownOption(error)) throw error;
    }
  }
}

function isUnknownOption(error: unknown): boolean {
  return error instanceof CommandError && /Bad option|extended options/iu.test(error.stderr);
}

export async function growFileSystem(name: string, { host, device, signal }: Resizing, path: string): Promise<void> {
  await host.run(fileSystem(name).grow(device, path), { signal, timeoutMs: LIMIT_MS });
}

/** AppError 'invalid' when it holds more than that. */
async function shrinkExt4(sizeBytes: number, { host, device, signal }: Resizing): Promise<void> {
  const limits = { signal, timeoutMs: LIMIT_MS };
  // 1: errors were corrected
  await host.run(['e2fsck', '-f', '-p', '--', device], { ...limits, okExitCodes: [0, 1] });
  try {
    await host.run(['resize2fs', '--', device, `${Math.floor(sizeBytes / 1024)}K`], limits);
  } catch (error) {
    if (!(error instanceof CommandError) || !/smaller than minimum|[Nn]ot enough space/u.test(error.stderr))
      throw error;
    throw new AppError('invalid', `The volume holds more than ${sizeBytes} bytes and cannot shrink to that`, {
      cause: error,
    });
  }
}
