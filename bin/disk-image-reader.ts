// The process that reads a disk image nobody vouches for: it has the image, a pipe, and no rights.
import { messageOf } from '#src/lib/errors.ts';
import { type DiskFormat, readDiskImage } from '#drivers/virt/lxd/disk-image/reader.ts';

const STDIN = 0;
const NOBODY = 65_534;

const [format, maxDiskBytes] = process.argv.slice(2);

// All code is loaded; from here on the kernel refuses everything but what is open.
if (process.getuid?.() === 0) {
  process.setgroups?.([]);
  process.setgid?.(NOBODY);
  process.setuid?.(NOBODY);
}
try {
  const task = { format: format as DiskFormat, maxDiskBytes: Number(maxDiskBytes) };
  console.error(JSON.stringify(await readDiskImage(STDIN, task, process.stdout)));
} catch (error) {
  const isUnfit = error instanceof Error && 'kind' in error && error.kind === 'invalid';
  console.error(JSON.stringify({ [isUnfit ? 'unfit' : 'failure']: messageOf(error) }));
  process.exitCode = 1;
}
