// A line of `ls -l` for SFTP clients that show it as it is.
import type { Attributes } from '#src/host/contained/attributes.ts';

const KINDS = { file: '-', directory: 'd', symlink: 'l', other: '?' } as const;
const MONTHS = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ');

export function longName(name: string, { kind, uid, gid, mode, sizeBytes, modified }: Attributes): string {
  const owner = [uid, gid, sizeBytes].map((value) => String(value).padStart(8)).join(' ');
  const day = String(modified.getUTCDate()).padStart(2);
  const date = `${MONTHS[modified.getUTCMonth()]} ${day}  ${modified.getUTCFullYear()}`;
  return `${KINDS[kind]}${permissions(mode)}    1 ${owner} ${date} ${name}`;
}

function permissions(mode: number): string {
  const letters = [6, 3, 0].map((shift) => {
    const bits = (mode >> shift) & 7;
    return `${(bits & 4) === 0 ? '-' : 'r'}${(bits & 2) === 0 ? '-' : 'w'}${(bits & 1) === 0 ? '-' : 'x'}`;
  });
  return letters.join('');
}
