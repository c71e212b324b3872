// open-iscsi of a machine in memory, its targets, and what the kernel shows of them in /sys.
import { FakeHost } from './fake-host.ts';

export interface FakeTarget {
  readonly portal: string;
  /** Bytes, by number of the unit. */
  readonly units: Map<number, number>;
  readonly chap?: { readonly user: string; readonly password: string };
  isDown?: boolean;
}

interface Disk {
  readonly iqn: string;
  readonly lun: number;
  readonly folder: string;
  sizeBytes: number;
}

const SESSION_EXISTS = 15;
const NOTHING_THERE = 21;
const REFUSED = 24;

export class FakeIscsi extends FakeHost {
  readonly targets = new Map<string, FakeTarget>();
  /** Settings of the nodes that open-iscsi knows, by target and portal. */
  readonly nodes = new Map<string, Map<string, string>>();
  /** Session by target and portal. */
  readonly sessions = new Map<string, number>();
  readonly disks = new Map<string, Disk>();
  #made = 0;

  constructor() {
    super();
    this.on(/^iscsiadm --mode node/, ({ argv }) => this.#node(argv.slice(3)));
  }

  override async writeFile(path: string, data: string | Uint8Array): Promise<void> {
    await super.writeFile(path, data);
    const scanned = /^\/sys\/class\/scsi_host\/host(?<number>\d+)\/scan$/.exec(path)?.groups?.['number'];
    if (scanned !== undefined) this.#scan(Number(scanned), Number(String(data).split(' ')[2]));
    const changed = /^\/sys\/class\/block\/(?<disk>\w+)\/device\/(?<what>delete|rescan)$/.exec(path)?.groups;
    const disk = this.disks.get(changed?.['disk'] ?? '');
    if (!changed || !disk) return;
    if (changed['what'] === 'rescan') disk.sizeBytes = this.targets.get(disk.iqn)?.units.get(disk.lun) ?? 0;
    else this.#drop(changed['disk'] ?? '', disk);
  }

  #node(args: readonly string[]): { exitCode: number; stderr?: string } {
    const value = (option: string) => args[args.indexOf(option) + 1] ?? '';
    const [iqn, portal] = [value('--targetname'), value('--portal')];
    const key = `${iqn} ${portal}`;
    if (args.includes('--login')) return this.#login(iqn, portal);
    if (args.includes('--logout')) return this.#logout(key);
    if (value('--op') === 'new') this.nodes.set(key, new Map());
    else if (value('--op') === 'update') this.nodes.get(key)?.set(value('--name'), value('--value'));
    else if (!this.nodes.delete(key)) return { exitCode: NOTHING_THERE, stderr: 'iscsiadm: No records found' };
    return { exitCode: 0 };
  }

  #login(iqn: string, portal: string): { exitCode: number; stderr?: string } {
    const key = `${iqn} ${portal}`;
    const target = this.targets.get(iqn);
    if (this.sessions.has(key)) return { exitCode: SESSION_EXISTS };
    if (!target || target.isDown === true || target.portal !== portal) {
      return { exitCode: 8, stderr: 'iscsiadm: Could not login\niscsiadm: connection timed out' };
    }
    const password = this.nodes.get(key)?.get('node.session.auth.password');
    if (target.chap?.password !== password) return { exitCode: REFUSED, stderr: 'iscsiadm: authorization failure' };
    const number = ++this.#made;
    this.sessions.set(key, number);
    const [, address = '', port = ''] = /^\[?(.*?)\]?:(\d+)$/.exec(portal) ?? [];
    this.files.set(`/sys/class/iscsi_session/session${number}/targetname`, `${iqn}\n`);
    this.files.set(`/sys/class/iscsi_connection/connection${number}:0/persistent_address`, `${address}\n`);
    this.files.set(`/sys/class/iscsi_connection/connection${number}:0/persistent_port`, `${port}\n`);
    this.files.set(`/sys/class/iscsi_host/host${number}/device/session${number}`, null);
    return { exitCode: 0 };
  }

  #logout(key: string): { exitCode: number } {
    const number = this.sessions.get(key);
    if (number === undefined) return { exitCode: NOTHING_THERE };
    this.sessions.delete(key);
    for (const path of this.files.keys()) {
      if (new RegExp(`/(?:session|connection|host)${number}(?:[/:]|$)`).test(path)) this.files.delete(path);
    }
    return { exitCode: 0 };
  }

  #scan(number: number, lun: number): void {
    const [key = ''] = [...this.sessions].find(([, session]) => session === number) ?? [];
    const [iqn = ''] = key.split(' ');
    const sizeBytes = this.targets.get(iqn)?.units.get(lun);
    const isKnown = [...this.disks.values()].some((disk) => disk.iqn === iqn && disk.lun === lun);
    if (sizeBytes === undefined || isKnown) return;
    const name = `sd${String.fromCodePoint(97 + this.disks.size)}`;
    const folder = `/sys/class/iscsi_session/session${number}/device/target${number}:0:0/${number}:0:0:${lun}`;
    this.disks.set(name, { iqn, lun, folder, sizeBytes });
    this.files.set(`${folder}/block/${name}`, null).set(`/dev/${name}`, '');
  }

  #drop(name: string, { folder }: Disk): void {
    this.disks.delete(name);
    this.files.delete(`${folder}/block/${name}`);
    this.files.delete(`/dev/${name}`);
  }
}
