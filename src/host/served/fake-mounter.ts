// What stands in for fusermount(1) in the jail of a FUSE server: the file system is mounted already, by who may.
//
// libfuse asks fusermount for a mount and is sent the open device over a socket. The server has that from its start, as descriptor 3,
// and all that is left to do is to send it. Of what every Debian has, perl is the only program that can, and takes 5 ms for it.
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { Host } from '../host.ts';

const SENDMSG: Readonly<Partial<Record<NodeJS.Architecture, number>>> = { x64: 46, arm64: 211 };
const NAMES = ['fusermount', 'fusermount3'];

/** A message of one byte with descriptor 3 (struct msghdr with an iovec and SCM_RIGHTS, on 64 bits). */
function script(sendmsg: number): string {
  return `#!/usr/bin/perl
my $data = pack("PQ", "x", 1);
my $rights = pack("QiiiI", 20, 1, 1, 3, 0);
my $message = pack("QIx4PQPQix4", 0, 0, $data, 1, $rights, length($rights), 0);
exit(syscall(${sendmsg}, $ENV{_FUSE_COMMFD} + 0, $message, 0) == 1 ? 0 : 1);
`;
}

/** Options of bwrap(1) that put it into the jail. */
export async function fakeMounter(host: Host, directory: string): Promise<readonly string[]> {
  const sendmsg = SENDMSG[process.arch];
  if (sendmsg === undefined) throw new AppError('unsupported', `File systems cannot be served on ${process.arch}`);
  const file = join(directory, 'mounter');
  await host.writeFile(file, script(sendmsg), { mode: 0o755 });
  const more = ['--dev-bind', '/dev/null', '/dev/fuse'];
  for (const name of NAMES) {
    more.push('--ro-bind', file, `/bin/${name}`);
    if (await host.exists(`/usr/bin/${name}`)) more.push('--ro-bind', file, `/usr/bin/${name}`);
  }
  return more;
}
