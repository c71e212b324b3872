// The two sides of a proxy: the host, and a container. Sockets are made in the network namespace of their side, and files of
// Unix sockets in a container are found and made with its rights and under its root.
import { fstatSync, lstatSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { portAddress, unixAddress } from './addresses.ts';
import {
  AF,
  as,
  bind,
  close,
  connect,
  enterNetwork,
  isAlive,
  listen,
  O,
  open,
  openProcess,
  openWithin,
  OPTION,
  removeFile,
  setMode,
  setOption,
  setOwner,
  SOCK,
  socket,
} from './calls.ts';
import type { ForwardSpec, HostOwner, PortAddress, UnixAddress } from './messages.ts';

type Kind = 'tcp' | 'udp' | 'unix';

/** A place where sockets are made. */
export interface Side {
  socket(domain: number, kind: Kind): number;
  /** Runs `use` with a path of this host for a path of the side, whose last part is not followed. */
  withPath<T>(path: string, use: (hostPath: string) => T): T;
  /** Runs `use` with a path of this host for what is at a path of the side, found with somebody's rights. */
  withFound<T>(path: string, who: HostOwner, use: (hostPath: string) => T): T;
}

const ROOT: HostOwner = { uid: 0, gid: 0 };

export class HostSide implements Side {
  readonly networkFd = open('/proc/thread-self/ns/net', O.readonly);

  socket(domain: number, kind: Kind): number {
    return socket(domain, kind === 'udp' ? SOCK.datagram : SOCK.stream);
  }

  withPath<T>(path: string, use: (hostPath: string) => T): T {
    return use(path);
  }

  withFound<T>(path: string, who: HostOwner, use: (hostPath: string) => T): T {
    return as(who, () => use(path));
  }
}

export class ContainerSide implements Side {
  readonly #host: HostSide;
  readonly #spec: ForwardSpec;
  readonly #networkFd: number;
  /** Readable when the container's init is gone. */
  readonly processFd: number;

  /** CallError when the container is gone. */
  constructor(host: HostSide, spec: ForwardSpec) {
    this.#host = host;
    this.#spec = spec;
    this.processFd = openProcess(spec.initPid);
    try {
      this.#networkFd = open(`/proc/${spec.initPid}/ns/net`, O.readonly);
    } catch (error) {
      close(this.processFd);
      throw error;
    }
  }

  close(): void {
    close(this.#networkFd);
    close(this.processFd);
  }

  socket(domain: number, kind: Kind): number {
    enterNetwork(this.#networkFd);
    try {
      return this.#host.socket(domain, kind);
    } finally {
      enterNetwork(this.#host.networkFd);
    }
  }

  withPath<T>(path: string, use: (hostPath: string) => T): T {
    return this.#within(dirname(path), { who: this.#spec.root, flags: O.path | O.directory }, (fd) => {
      return as(this.#spec.root, () => use(`/proc/self/fd/${fd}/${basename(path)}`));
    });
  }

  withFound<T>(path: string, who: HostOwner, use: (hostPath: string) => T): T {
    return this.#within(path, { who, flags: O.path }, (fd) => as(who, () => use(`/proc/self/fd/${fd}`)));
  }

  #open(root: number, path: string, { who, flags }: { readonly who: HostOwner; readonly flags: number }): number {
    try {
      return as(who, () => openWithin(root, path, flags));
    } catch (error) {
      const { root: owner } = this.#spec;
      const isRoot = who.uid === owner.uid && who.gid === owner.gid;
      if (errnoOf(error) !== 'EACCES' || !isRoot) throw error;
      return openOwned(root, path, { owner, flags });
    }
  }

  /** Its root is not kept open: a container that ends is to leave nothing behind. */
  #within<T>(
    path: string,
    { who, flags }: { readonly who: HostOwner; readonly flags: number },
    use: (fd: number) => T,
  ): T {
    const root = open(`/proc/${this.#spec.initPid}/root`, O.path | O.directory);
    try {
      if (!isAlive(this.processFd)) throw new Error('the container is gone');
      const fd = this.#open(root, path, { who, flags });
      try {
        return use(fd);
      } finally {
        close(fd);
      }
    } finally {
      close(root);
    }
  }
}

/**
 * As root of a container has it, who passes whatever modes its own directories have: each step is a directory of that root, or at the end
 * what is looked for. Nothing is followed.
 */
function openOwned(
  rootFd: number,
  path: string,
  { owner, flags }: { readonly owner: HostOwner; readonly flags: number },
) {
  const names = path.split('/').filter((name) => name !== '' && name !== '.');
  let at = openWithin(rootFd, '.', O.path | O.directory);
  try {
    for (const [index, name] of names.entries()) {
      const { uid, gid } = fstatSync(at);
      if (uid !== owner.uid || gid !== owner.gid || name === '..') throw new Error(`${path}: permission denied`);
      const isLast = index === names.length - 1;
      const next = openWithin(at, name, isLast ? flags | O.nofollow : O.path | O.nofollow | O.directory);
      close(at);
      at = next;
    }
    return at;
  } catch (error) {
    close(at);
    throw error;
  }
}

/** A socket that listens, or receives datagrams. */
export interface Listening {
  readonly fd: number;
  readonly kind: Kind;
  /** Which of several ports it is. */
  readonly index: number;
  /** Removes what is seen of it beside the socket. */
  remove(): void;
}

export function listenOn(side: Side, spec: ForwardSpec): readonly Listening[] {
  const { listen: address } = spec;
  const done: Listening[] = [];
  try {
    if (address.kind === 'unix') done.push(listenOnPath(side, address, spec));
    else for (const index of address.ports.keys()) done.push(listenOnPort(side, address, { index, spec }));
    return done;
  } catch (error) {
    for (const one of done) {
      close(one.fd);
      one.remove();
    }
    throw error;
  }
}

function listenOnPort(
  side: Side,
  { kind, address, ports }: PortAddress,
  { index, spec }: { readonly index: number; readonly spec: ForwardSpec },
): Listening {
  const where = portAddress(address, ports[index] ?? 0);
  const domain = where.readUInt16LE(0);
  const fd = side.socket(domain, kind);
  try {
    if (kind === 'tcp') setOption(fd, OPTION.reuseAddress, 1);
    if (domain === AF.inet6) setOption(fd, OPTION.onlyV6, address === '' || /^[0:]+$/.test(address) ? 0 : 1);
    // Containers bring their addresses up after their start.
    if (spec.listensInside) setOption(fd, domain === AF.inet ? OPTION.freeBind : OPTION.freeBindV6, 1);
    bind(fd, where);
    if (kind === 'tcp') listen(fd);
    return { fd, kind, index, remove() {} };
  } catch (error) {
    close(fd);
    throw error;
  }
}

function listenOnPath(side: Side, { path, abstract }: UnixAddress, spec: ForwardSpec): Listening {
  const fd = side.socket(AF.unix, 'unix');
  try {
    if (abstract) {
      bind(fd, unixAddress(path, true));
      listen(fd);
      return { fd, kind: 'unix', index: 0, remove() {} };
    }
    setMode(fd, spec.socket.mode);
    const made = side.withPath(path, (hostPath) => bindFresh(side, fd, hostPath));
    own(side, path, spec);
    listen(fd);
    return { fd, kind: 'unix', index: 0, remove: () => removeSocket(side, path, made) };
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** A socket that nobody listens on any more is replaced. The number of the new file. */
function bindFresh(side: Side, fd: number, hostPath: string): bigint {
  const where = unixAddress(hostPath, false);
  try {
    bind(fd, where);
  } catch (error) {
    if (errnoOf(error) !== 'EADDRINUSE' || !isDead(side, hostPath)) throw error;
    removeFile(hostPath);
    bind(fd, where);
  }
  return lstatSync(hostPath, { bigint: true }).ino;
}

function isDead(side: Side, hostPath: string): boolean {
  if (!lstatSync(hostPath).isSocket()) return false;
  const fd = side.socket(AF.unix, 'unix');
  try {
    connect(fd, unixAddress(hostPath, false));
    return false;
  } catch (error) {
    return errnoOf(error) === 'ECONNREFUSED';
  } finally {
    close(fd);
  }
}

/** The file is looked at, not its path again: somebody may have put something else there. */
function own(side: Side, path: string, { socket: owner, root, listensInside }: ForwardSpec): void {
  const maker = listensInside ? root : ROOT;
  if (owner.uid === maker.uid && owner.gid === maker.gid) return;
  const file = side.withPath(path, (hostPath) => open(hostPath, O.path | O.nofollow));
  try {
    setOwner(file, owner);
  } finally {
    close(file);
  }
}

function removeSocket(side: Side, path: string, made: bigint): void {
  try {
    side.withPath(path, (hostPath) => {
      const found = lstatSync(hostPath, { bigint: true, throwIfNoEntry: false });
      if (found?.ino === made && found.isSocket()) removeFile(hostPath);
    });
  } catch {
    // gone with its container, or with its directory
  }
}

/** A socket that is connected, or on its way to it. */
export function connectFrom(side: Side, spec: ForwardSpec, index: number): number {
  const { connect: to, connector } = spec;
  if (to.kind !== 'unix') return connectToPort(side, to, index);
  const fd = side.socket(AF.unix, 'unix');
  const go = (path: string) => connect(fd, unixAddress(path, to.abstract));
  try {
    if (to.abstract) as(connector, () => go(to.path));
    else side.withFound(to.path, connector, go);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

function connectToPort(side: Side, { kind, address, ports }: PortAddress, index: number): number {
  const where = portAddress(address === '' ? '127.0.0.1' : address, ports[index] ?? ports[0] ?? 0);
  const fd = side.socket(where.readUInt16LE(0), kind);
  try {
    if (kind === 'tcp') setOption(fd, OPTION.noDelay, 1);
    connect(fd, where);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

function errnoOf(error: unknown): string | undefined {
  return (error as { errno?: string }).errno;
}
