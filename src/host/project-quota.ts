// Project quotas of ext4 and xfs: a number on a directory tree, and a limit on the number (quotactl_fd(2), Linux 5.14).
import { closeSync, openSync } from 'node:fs';
import { AppError } from '#src/lib/errors.ts';
import { ioctl, KernelError, quotactl } from './kernel.ts';

export interface ProjectQuotas {
  /** Whether the file system of this directory accounts and limits projects. */
  enabled(path: string): Promise<boolean>;
  /** Gives a directory to a project; what is made in it later belongs to it as well. */
  assign(path: string, projectId: number): Promise<void>;
  /** undefined: no limit. */
  limit(path: string, projectId: number, bytes: number | undefined): Promise<void>;
  used(path: string, projectId: number): Promise<number>;
}

const FS_IOC_FSGETXATTR = 0x801c581f;
const FS_IOC_FSSETXATTR = 0x401c5820;
const FS_XFLAG_PROJINHERIT = 0x200;
const FSXATTR_SIZE = 28;
const PRJQUOTA = 2;
const Q_GETFMT = 0x800004;
const Q_GETQUOTA = 0x800007;
const Q_SETQUOTA = 0x800008;
/** struct if_dqblk: hard and soft limit in blocks, used bytes, three of inodes, two times, what is valid. */
const DQBLK_SIZE = 72;
const DQBLK = { hard: 0, soft: 8, usedBytes: 16, valid: 64 } as const;
const QIF_BLIMITS = 1;
const QUOTA_BLOCK = 1024;

function command(quotaCommand: number): number {
  return ((quotaCommand << 8) | PRJQUOTA) >>> 0;
}

async function withFd<T>(path: string, work: (fd: number) => Promise<T>): Promise<T> {
  const fd = openSync(path, 'r');
  try {
    return await work(fd);
  } catch (error) {
    throw new AppError('internal', `project quota of ${path}: ${String(error)}`, { cause: error });
  } finally {
    closeSync(fd);
  }
}

export class LinuxProjectQuotas implements ProjectQuotas {
  async enabled(path: string): Promise<boolean> {
    try {
      await withFd(path, (fd) => quotactl(fd, command(Q_GETFMT), { id: 0, argument: Buffer.alloc(4) }));
      return true;
    } catch (error) {
      // ESRCH: not switched on; ENOSYS, EOPNOTSUPP, ENOTTY: the kernel or the file system has none.
      if (error instanceof AppError && error.cause instanceof KernelError) return false;
      throw error;
    }
  }

  assign(path: string, projectId: number): Promise<void> {
    return withFd(path, async (fd) => {
      const attributes = Buffer.alloc(FSXATTR_SIZE); // flags, extent size, extents, project id
      await ioctl(fd, FS_IOC_FSGETXATTR, attributes);
      attributes.writeUInt32LE((attributes.readUInt32LE(0) | FS_XFLAG_PROJINHERIT) >>> 0, 0);
      attributes.writeUInt32LE(projectId, 12);
      await ioctl(fd, FS_IOC_FSSETXATTR, attributes, `assign ${path} ${projectId}`);
    });
  }

  limit(path: string, projectId: number, bytes: number | undefined): Promise<void> {
    return withFd(path, async (fd) => {
      const argument = Buffer.alloc(DQBLK_SIZE);
      argument.writeBigUInt64LE(BigInt(Math.ceil((bytes ?? 0) / QUOTA_BLOCK)), DQBLK.hard);
      argument.writeUInt32LE(QIF_BLIMITS, DQBLK.valid);
      await quotactl(fd, command(Q_SETQUOTA), { id: projectId, argument, change: 'limit' });
    });
  }

  used(path: string, projectId: number): Promise<number> {
    return withFd(path, async (fd) => {
      const argument = Buffer.alloc(DQBLK_SIZE);
      await quotactl(fd, command(Q_GETQUOTA), { id: projectId, argument });
      return Number(argument.readBigUInt64LE(DQBLK.usedBytes));
    });
  }
}
