// LVM's commands in memory, as those of a FakeHost: one volume group, a thin pool, thin volumes with the files that are in them.
import type { FakeCall, FakeHost } from './fake-host.ts';

interface Volume {
  size: number;
  readonly isPool: boolean;
  isReadonly: boolean;
  isActive: boolean;
  readonly tags: Set<string>;
  readonly origin: string;
  /** Path in its file system → contents; undefined: none is made. */
  files: Map<string, string | null> | undefined;
}

class Complaint extends Error {}

const EXTENT = 4 * 2 ** 20;

export class FakeLvm {
  group: { readonly name: string; readonly tags: Set<string>; readonly device: string } | undefined;
  readonly volumes = new Map<string, Volume>();
  /** Mount point → name of the volume. */
  readonly mounted = new Map<string, string>();
  readonly loops = new Map<string, string>();
  /** Volumes that some process is in, whether they are mounted or not. */
  readonly busy = new Set<string>();
  readonly #host: FakeHost;

  constructor(host: FakeHost) {
    this.#host = host;
    host.files.set('/run/udev/control', '');
    host.files.set('/proc/misc', '236 device-mapper\n');
    for (const program of ['lvcreate', 'thin_check', 'mkfs.ext4', 'losetup'])
      host.files.set(`/usr/sbin/${program}`, '');
    host.on(/^(vg|lv|pv)\w+ /, (call) => this.#answer(call));
    host.on(/^losetup /, ({ argv }) => this.#losetup(argv));
    host.on(/^blkid /, ({ argv }) => {
      const device = argv.at(-1) ?? '';
      if (!device.startsWith('/dev/mapper/')) return { exitCode: 2 }; // nothing is on it
      return this.#at(device).files ? 'ext4\n' : { exitCode: 2 };
    });
    host.on(/^mkfs/, ({ argv }) => {
      this.#at(argv.at(-1)).files = new Map();
      return '';
    });
    host.on(/^mount -t ext4/, ({ argv }) => this.#mount(argv.at(-2) ?? '', argv.at(-1) ?? ''));
    this.#followUnmounts();
  }

  #followUnmounts(): void {
    const { mounts, files } = this.#host;
    const unmount = mounts.unmount.bind(mounts);
    mounts.unmount = (target) => {
      const volume = this.volumes.get(this.mounted.get(target) ?? '');
      if (this.mounted.delete(target)) {
        const inside = [...files].filter(([path]) => path.startsWith(`${target}/`));
        if (volume) volume.files = new Map(inside.map(([path, data]) => [path.slice(target.length), data]));
        for (const [path] of inside) files.delete(path);
      }
      return unmount(target);
    };
  }

  #mount(device: string, target: string): string {
    const name = this.#nameOf(device);
    const volume = this.#require(name);
    if (!volume.isActive || !volume.files) throw new Error(`the fake cannot mount ${device}`);
    for (const [path, data] of volume.files) this.#host.files.set(target + path, data);
    this.#host.mounts.table.set(target, [device]);
    this.mounted.set(target, name);
    return '';
  }

  #answer({ argv }: FakeCall): { stdout?: string; stderr?: string; exitCode?: number } {
    try {
      return { stdout: this.#command(argv) };
    } catch (error) {
      if (!(error instanceof Complaint)) throw error;
      const log = [{ log_type: 'error', log_message: error.message }];
      if (!['vgs', 'lvs'].includes(argv[0])) return { stderr: `  ${error.message}\n`, exitCode: 5 };
      return { stdout: JSON.stringify({ report: [{}], log }), exitCode: 5 };
    }
  }

  #command([program, ...rest]: readonly string[]): string {
    const at = rest.indexOf('--');
    const [options, [first = '', ...more]] = [rest.slice(0, at), rest.slice(at + 1)];
    const values = (name: string): readonly string[] =>
      options.flatMap((option, index) => (option === name ? [options[index + 1] ?? ''] : []));
    const commands: Readonly<Record<string, () => string>> = {
      vgs: () => this.#vgs(first),
      vgcreate: () => {
        this.group = { name: first, tags: new Set(values('--addtag')), device: more[0] ?? '' };
        return '';
      },
      vgchange: () => this.#retag(this.#groupNamed(first).tags, values),
      vgremove: () => {
        this.group = undefined;
        this.volumes.clear();
        return '';
      },
      pvremove: () => '',
      lvs: () => this.#lvs(first),
      lvcreate: () => this.#lvcreate(first, options, values),
      lvchange: () => {
        for (const name of [first, ...more]) this.#lvchange(this.#require(last(name)), last(name), values);
        return '';
      },
      lvrename: () => this.#rename(more[0] ?? '', more[1] ?? ''),
      lvresize: () => {
        this.#require(last(first)).size = bytes(values('--size')[0]);
        return '';
      },
      lvremove: () => {
        this.#refuseUsed(last(first));
        this.volumes.delete(last(first));
        return '';
      },
    };
    const command = commands[program ?? ''];
    if (!command) throw new Error(`the fake LVM does not know ${program}`);
    return command();
  }

  #lvcreate(where: string, options: readonly string[], values: (name: string) => readonly string[]): string {
    const [name = ''] = [...values('--name'), ...values('--thinpool')];
    if (this.volumes.has(name)) throw new Complaint(`Logical Volume "${name}" already exists in volume group "vg"`);
    const common = { tags: new Set(values('--addtag')), isReadonly: values('--permission')[0] === 'r' };
    if (options.includes('--snapshot')) {
      const origin = this.volumes.get(last(where));
      if (!origin) throw new Complaint(`Snapshot origin LV ${last(where)} not found in Volume group vg.`);
      const files = new Map(this.#filesOf(last(where)));
      this.volumes.set(name, {
        ...common,
        size: origin.size,
        isPool: false,
        isActive: false,
        origin: last(where),
        files,
      });
      return '';
    }
    const isPool = options.includes('--thinpool');
    this.#groupNamed(where.split('/')[0] ?? '');
    const size = isPool ? 100 * EXTENT : bytes(values('--virtualsize')[0]);
    this.volumes.set(name, { ...common, size, isPool, isActive: true, origin: '', files: undefined });
    return '';
  }

  #filesOf(name: string): ReadonlyMap<string, string | null> {
    const target = [...this.mounted].find(([, one]) => one === name)?.[0];
    if (target === undefined) return this.volumes.get(name)?.files ?? new Map();
    const inside = [...this.#host.files].filter(([path]) => path.startsWith(`${target}/`));
    return new Map(inside.map(([path, data]) => [path.slice(target.length), data]));
  }

  #lvchange(volume: Volume, name: string, values: (name: string) => readonly string[]): void {
    this.#retag(volume.tags, values);
    if (values('--permission')[0] !== undefined) volume.isReadonly = values('--permission')[0] === 'r';
    const [activate] = values('--activate');
    if (activate === 'n') this.#refuseUsed(name);
    if (activate !== undefined) volume.isActive = activate === 'y';
  }

  #retag(tags: Set<string>, values: (name: string) => readonly string[]): string {
    for (const tag of values('--addtag')) tags.add(tag);
    for (const tag of values('--deltag')) tags.delete(tag);
    return '';
  }

  #rename(from: string, to: string): string {
    const volume = this.#require(from);
    if (this.volumes.has(to)) throw new Complaint(`New logical volume "${to}" already exists in volume group "vg"`);
    this.volumes.delete(from);
    this.volumes.set(to, volume);
    for (const [target, name] of this.mounted) if (name === from) this.mounted.set(target, to);
    if (this.busy.delete(from)) this.busy.add(to);
    return '';
  }

  #refuseUsed(name: string): void {
    this.#require(name);
    const isMounted = [...this.mounted.values()].includes(name);
    if (isMounted || this.busy.has(name))
      throw new Complaint(`Logical volume vg/${name} contains a filesystem in use.`);
  }

  #require(name: string): Volume {
    const volume = this.volumes.get(name);
    if (!volume) throw new Complaint(`Failed to find logical volume "vg/${name}"`);
    return volume;
  }

  #groupNamed(name: string): NonNullable<FakeLvm['group']> {
    if (this.group?.name !== name) throw new Complaint(`Volume group "${name}" not found`);
    return this.group;
  }

  #vgs(name: string): string {
    const { tags, device } = this.#groupNamed(name);
    const sizes = { vg_size: '1000000000', vg_free: '0', vg_extent_size: String(EXTENT) };
    return JSON.stringify({
      report: [{ vg: [{ vg_name: name, ...sizes, vg_tags: [...tags].join(), pv_name: device }] }],
    });
  }

  #lvs(what: string): string {
    this.#groupNamed(what.split('/')[0] ?? '');
    const names = what.includes('/') ? [last(what)] : [...this.volumes.keys()];
    const lv = names.map((name) => {
      const { size, isPool, isReadonly, isActive, tags, origin } = this.#require(name);
      const pool = [...this.volumes].find(([, one]) => one.isPool)?.[0] ?? '';
      return {
        lv_name: name,
        lv_size: String(size),
        lv_attr: `${isPool ? 't' : 'V'}${isReadonly ? 'r' : 'w'}i-${isActive ? 'a' : '-'}-tz--`,
        lv_tags: [...tags].join(),
        pool_lv: isPool ? '' : pool,
        origin,
        data_percent: isActive ? '10.00' : '',
      };
    });
    return JSON.stringify({ report: [{ lv }] });
  }

  #losetup(argv: readonly string[]): string {
    const file = argv.at(-1) ?? '';
    const known = [...this.loops].find(([, other]) => other === file)?.[0];
    if (argv.includes('-j')) return known === undefined ? '' : `${known}\n`;
    if (argv.includes('--detach')) this.loops.delete(file);
    if (!argv.includes('--find')) return '';
    const device = `/dev/loop${this.loops.size}`;
    this.loops.set(device, file);
    return `${device}\n`;
  }

  #at(device: string | undefined): Volume {
    return this.#require(this.#nameOf(device ?? ''));
  }

  #nameOf(device: string): string {
    return device.slice('/dev/mapper/'.length + (this.group?.name ?? '').length + 1).replaceAll('--', '-');
  }
}

function last(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** As LVM rounds it. */
function bytes(text = ''): number {
  return Math.ceil(Number.parseInt(text, 10) / EXTENT) * EXTENT;
}
