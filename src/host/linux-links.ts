// Links over rtnetlink.
import { AppError } from '#src/lib/errors.ts';
import { bytesValue, ipBytes, ipText, type IpAddress, networkText, parseIp, parseNetwork } from '#src/lib/ip.ts';
import type { Argv, RunOptions } from './host.ts';
import { KernelError } from './kernel.ts';
import { linkMessage, newLinkMessage } from './link-messages.ts';
import type { GivenLink, Link, LinkAddress, Links, LinkSettings, NewLink, Route, SeenRoute } from './links.ts';
import {
  attribute,
  attributes,
  changeNetlink,
  cText,
  dumpNetlink,
  RouteSocket,
  textAttribute,
  uint32Attribute,
} from './netlink-socket.ts';

const RTM = {
  newLink: 16,
  delLink: 17,
  getLink: 18,
  setLink: 19,
  newAddress: 20,
  delAddress: 21,
  getAddress: 22,
  newRoute: 24,
  delRoute: 25,
  getRoute: 26,
  newNeighbour: 28,
  delNeighbour: 29,
} as const;
const FLAG = { replace: 0x100, exclusive: 0x200, create: 0x400 } as const;
const IFLA = { address: 1, name: 3, mtu: 4, master: 10, linkInfo: 18 } as const;
const IFA = { address: 1, local: 2, flags: 8 } as const;
const IFA_F_NODAD = 2;
const RTA = { destination: 1, interface: 4, gateway: 5, source: 7, table: 15 } as const;
const NDA_DESTINATION = 1;
const NTF_PROXY = 8;
const AF_INET = 2;
const AF_INET6 = 10;
const SCOPE = { universe: 0, link: 253, host: 254 } as const;
const MAIN_TABLE = 254;
const PROTOCOL = { boot: 3, static: 4 } as const;
const UNICAST = 1;
const TAKE_BACK_MS = 10_000;

/** Runs a program: an interface can be sent out of another namespace only from within it. */
type Run = (argv: Argv, options: RunOptions) => Promise<unknown>;

export class LinuxLinks implements Links {
  readonly #run: Run;

  constructor(run: Run) {
    this.#run = run;
  }

  async list(): Promise<readonly Link[]> {
    return dumpNetlink(RTM.getLink, Buffer.alloc(16)).map(parseLink);
  }

  async find(name: string): Promise<Link | undefined> {
    return this.#find(name);
  }

  /** Asked for alone: a host may have thousands of others. */
  #find(name: string): Link | undefined {
    const socket = new RouteSocket();
    try {
      const body = socket.ask(RTM.getLink, Buffer.concat([Buffer.alloc(16), textAttribute(IFLA.name, name)]));
      return body && parseLink(body);
    } catch (error) {
      // ERANGE, EINVAL: no interface can have that name.
      if (isErrno(error, 'ENODEV', 'ERANGE', 'EINVAL')) return undefined;
      throw error;
    } finally {
      socket.close();
    }
  }

  #indexOf = (name: string): number => {
    const link = this.#find(name);
    if (!link) throw new AppError('not_found', `no network interface "${name}"`);
    return link.index;
  };

  async create(link: NewLink): Promise<void> {
    const body = newLinkMessage(link, this.#indexOf);
    await naming(`make network interface "${link.name}"`, () =>
      changeNetlink({ type: RTM.newLink, flags: FLAG.create | FLAG.exclusive, body }),
    );
  }

  async change(name: string, settings: LinkSettings & { readonly name?: string }): Promise<void> {
    const { master, ...fields } = settings;
    const index = this.#indexOf(name);
    const joined = master === undefined ? {} : { master: master === null ? 0 : this.#indexOf(master) };
    await naming(`change network interface "${name}"`, () =>
      changeNetlink({ type: RTM.setLink, body: linkMessage({ ...fields, ...joined, index }) }),
    );
  }

  async remove(name: string): Promise<void> {
    const link = this.#find(name);
    if (!link) return;
    try {
      await changeNetlink({ type: RTM.delLink, body: linkMessage({ index: link.index }) });
    } catch (error) {
      if (!isErrno(error, 'ENODEV')) throw error;
    }
  }

  async give({ link, ...settings }: GivenLink, pid: number): Promise<void> {
    const index = this.#indexOf(link);
    // Renamed and put up in one message, after the move: the name may be taken here. Down first: one that is up has no new name.
    await this.change(link, { up: false });
    await naming(`move network interface "${link}" into the container`, () =>
      changeNetlink({ type: RTM.setLink, body: linkMessage({ index, pid, up: true, ...settings }) }),
    );
  }

  async takeBack({ link, name }: Pick<GivenLink, 'link' | 'name'>, pid: number): Promise<void> {
    const inside: Argv = ['nsenter', '--target', String(pid), '--net', '--'];
    const options = { timeoutMs: TAKE_BACK_MS };
    await this.#run([...inside, 'ip', 'link', 'set', 'dev', name, 'down'], options);
    await this.#run([...inside, 'ip', 'link', 'set', 'dev', name, 'netns', String(process.pid), 'name', link], options);
  }

  async addresses(): Promise<readonly LinkAddress[]> {
    return dumpNetlink(RTM.getAddress, Buffer.alloc(8)).map(parseAddress);
  }

  async addAddress(name: string, address: string): Promise<void> {
    const body = addressMessage(this.#indexOf(name), address);
    const flags = FLAG.create | FLAG.replace;
    await naming(`add address ${address} to "${name}"`, () => changeNetlink({ type: RTM.newAddress, flags, body }));
  }

  async removeAddress(name: string, address: string): Promise<void> {
    const body = addressMessage(this.#indexOf(name), address);
    await unless(['EADDRNOTAVAIL'], () => changeNetlink({ type: RTM.delAddress, body }));
  }

  async routes(): Promise<readonly SeenRoute[]> {
    return dumpNetlink(RTM.getRoute, Buffer.alloc(12)).flatMap(parseRoute);
  }

  async addRoute(route: Route): Promise<void> {
    const body = routeMessage(route, this.#indexOf(route.interface));
    const flags = FLAG.create | (route.fresh === true ? FLAG.exclusive : FLAG.replace);
    await naming(`add route ${route.destination} on "${route.interface}"`, () =>
      changeNetlink({ type: RTM.newRoute, flags, body }),
    );
  }

  async removeRoute(route: Route): Promise<void> {
    const link = this.#find(route.interface);
    if (!link) return;
    await unless(['ESRCH'], () => changeNetlink({ type: RTM.delRoute, body: routeMessage(route, link.index) }));
  }

  async addProxy(name: string, address: string): Promise<void> {
    const body = proxyMessage(this.#indexOf(name), address);
    await naming(`answer for ${address} on "${name}"`, () =>
      changeNetlink({ type: RTM.newNeighbour, flags: FLAG.create | FLAG.replace, body }),
    );
  }

  async removeProxy(name: string, address: string): Promise<void> {
    const link = this.#find(name);
    if (!link) return;
    await unless(['ENOENT', 'ESRCH'], () =>
      changeNetlink({ type: RTM.delNeighbour, body: proxyMessage(link.index, address) }),
    );
  }
}

function isErrno(error: unknown, ...names: readonly string[]): boolean {
  return error instanceof KernelError && names.includes(error.errno);
}

async function unless(errnos: readonly string[], work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!isErrno(error, ...errnos)) throw error;
  }
}

/** Says what failed on what. */
async function naming(what: string, work: () => Promise<void>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof KernelError)) throw error;
    throw new KernelError(`cannot ${what}: ${error.message.replace(/: \w+$/, '')}`, error.errno);
  }
}

function addressOf(text: string): IpAddress {
  const address = parseIp(text);
  if (!address) throw new AppError('invalid', `not an IP address: "${text}"`);
  return address;
}

function networkOf(text: string) {
  const network = parseNetwork(text);
  if (!network) throw new AppError('invalid', `not an IP network: "${text}"`);
  return network;
}

const familyOf = ({ family }: IpAddress): number => (family === 4 ? AF_INET : AF_INET6);

/** struct ifaddrmsg: family, prefix length, flags, scope, index at 4. */
function addressMessage(index: number, text: string): Buffer {
  const { address, prefix } = networkOf(text);
  const header = Buffer.from([familyOf(address), prefix, 0, SCOPE.universe, 0, 0, 0, 0]);
  header.writeUInt32LE(index, 4);
  const bytes = ipBytes(address);
  return Buffer.concat([
    header,
    attribute(IFA.local, bytes),
    attribute(IFA.address, bytes),
    // Duplicate detection would keep the address from being listened on for a second.
    ...(address.family === 6 ? [uint32Attribute(IFA.flags, IFA_F_NODAD)] : []),
  ]);
}

/** struct rtmsg: family, destination and source lengths, tos, table, protocol, scope, type, flags at 8. */
function routeMessage(route: Route, index: number): Buffer {
  const { address, prefix } = networkOf(route.destination);
  const { table = MAIN_TABLE, protocol = 'static', gateway, source } = route;
  const scope = gateway === undefined && address.family === 4 ? SCOPE.link : SCOPE.universe;
  const family = familyOf(address);
  const small = table < 256 ? table : 0;
  const header = Buffer.from([family, prefix, 0, 0, small, PROTOCOL[protocol], scope, UNICAST, 0, 0, 0, 0]);
  return Buffer.concat([
    header,
    attribute(RTA.destination, ipBytes(address)),
    uint32Attribute(RTA.interface, index),
    uint32Attribute(RTA.table, table),
    ...(gateway === undefined ? [] : [attribute(RTA.gateway, ipBytes(addressOf(gateway)))]),
    ...(source === undefined ? [] : [attribute(RTA.source, ipBytes(addressOf(source)))]),
  ]);
}

/** struct ndmsg: family, index at 4, state at 8, flags at 10. */
function proxyMessage(index: number, text: string): Buffer {
  const address = addressOf(text);
  const header = Buffer.alloc(12);
  header.writeUInt8(familyOf(address), 0);
  header.writeInt32LE(index, 4);
  header.writeUInt8(NTF_PROXY, 10);
  return Buffer.concat([header, attribute(NDA_DESTINATION, ipBytes(address))]);
}

function parseLink(body: Buffer): Link {
  const found = attributes(body, 16);
  const info = found.get(IFLA.linkInfo);
  const master = found.get(IFLA.master)?.readUInt32LE(0);
  const address = found.get(IFLA.address) ?? Buffer.alloc(0);
  return {
    index: body.readInt32LE(4),
    name: cText(found.get(IFLA.name)),
    kind: info ? cText(attributes(info, 0).get(1)) : '',
    up: (body.readUInt32LE(8) & 1) !== 0,
    mtu: found.get(IFLA.mtu)?.readUInt32LE(0) ?? 0,
    hwaddr: [...address].map((byte) => byte.toString(16).padStart(2, '0')).join(':'),
    ...(master !== undefined && { master }),
  };
}

function parseAddress(body: Buffer): LinkAddress {
  const found = attributes(body, 8);
  const bytes = found.get(IFA.local) ?? found.get(IFA.address) ?? Buffer.alloc(0);
  const family = body.readUInt8(0) === AF_INET ? 4 : 6;
  const scope = body.readUInt8(3);
  return {
    index: body.readUInt32LE(4),
    address: `${ipText({ family, value: bytesValue(bytes) })}/${body.readUInt8(1)}`,
    scope: scope === SCOPE.link ? 'link' : scope === SCOPE.host ? 'local' : 'global',
  };
}

/** Of the families that we know. */
function parseRoute(body: Buffer): readonly SeenRoute[] {
  const number = body.readUInt8(0);
  if (number !== AF_INET && number !== AF_INET6) return [];
  const family = number === AF_INET ? 4 : 6;
  const found = attributes(body, 12);
  const value = bytesValue(found.get(RTA.destination) ?? Buffer.alloc(0));
  return [
    {
      destination: networkText({ address: { family, value }, prefix: body.readUInt8(1) }),
      index: found.get(RTA.interface)?.readUInt32LE(0) ?? 0,
      table: found.get(RTA.table)?.readUInt32LE(0) ?? body.readUInt8(4),
      protocol: body.readUInt8(5),
    },
  ];
}
