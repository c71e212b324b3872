// The lxc configuration that is written, its limits on both kinds of cgroup hosts, and its system call filters.
import { describe, expect, it } from 'vitest';
import type { RuntimeSpec } from '#drivers/runtime/driver.ts';
import { apparmorRules, checkRules } from '#drivers/runtime/lxc/apparmor.ts';
import {
  limitSettings,
  payloadGroup,
  probeSwapAccounting,
  readCgroupLayout,
  readUsage,
  type CgroupLayout,
} from '#drivers/runtime/lxc/cgroups.ts';
import { lxcConfig } from '#drivers/runtime/lxc/config.ts';
import { ignoredLimits, layoutFor } from '#drivers/runtime/lxc/kernel-limits.ts';
import { validateRawConfig } from '#drivers/runtime/lxc/raw-config.ts';
import { seccompPolicy } from '#drivers/runtime/lxc/seccomp.ts';
import { PLAIN_SPEC } from '#test/contract/runtime/runtime-contract.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';

const MOUNTS_V1 = [
  '30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755',
  '31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct',
  '32 30 0:28 / /sys/fs/cgroup/memory rw shared:1 - cgroup cgroup rw,memory',
  '33 30 0:29 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids',
  '34 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd',
  '35 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw',
].join('\n');
const MOUNTS_V2 = '30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate';

async function layoutOf(
  mounts: string,
  files: Record<string, string | null> = {},
): Promise<{ host: FakeHost; layout: CgroupLayout }> {
  const host = new FakeHost();
  for (const [path, text] of Object.entries({ '/proc/self/mountinfo': mounts, ...files })) host.files.set(path, text);
  return { host, layout: await probeSwapAccounting(host, await readCgroupLayout(host)) };
}

const V2_FILES = { '/sys/fs/cgroup/cgroup.controllers': 'cpuset cpu io memory pids hugetlb\n' };
const BFQ = { '/sys/block/vda/queue/scheduler': 'none mq-deadline [bfq]\n' };
const HUGE = {
  '/sys/kernel/mm/hugepages': null,
  '/sys/kernel/mm/hugepages/hugepages-2048kB': null,
  '/sys/kernel/mm/hugepages/hugepages-1048576kB': null,
};
const container = {
  name: 'c1',
  configPath: '/l/c1/lxc.conf',
  logPath: '/l/c1/lxc.log',
  consoleLogPath: '/l/c1/console.log',
};

async function configOf(changes: Partial<RuntimeSpec>, unified = false): Promise<string[]> {
  const { layout } = unified ? await layoutOf(MOUNTS_V2, V2_FILES) : await layoutOf(MOUNTS_V1);
  const features = { cgroups: layout, apparmor: false, interceptsCalls: true, extraMounts: [] };
  return lxcConfig({ container, spec: { ...PLAIN_SPEC, ...changes }, features, seccompPath: '/l/c1/seccomp' }).split(
    '\n',
  );
}

describe('the lxc configuration', () => {
  it('maps ids and mounts an unprivileged container without device rules', async () => {
    const lines = await configOf({});

    expect(lines).toContain('lxc.idmap = u 0 100000 65536');
    expect(lines).toContain('lxc.idmap = g 0 100000 65536');
    expect(lines).toContain('lxc.mount.auto = proc:rw sys:rw cgroup:mixed');
    expect(lines).toContain('lxc.uts.name = c1');
    expect(lines).toContain('lxc.rootfs.path = dir:/nowhere');
    expect(lines).toContain('lxc.seccomp.profile = /l/c1/seccomp');
    expect(lines.filter((line) => /devices|cap\.drop|apparmor/.test(line))).toEqual([]);
  });

  it('drops capabilities and devices of a privileged one', async () => {
    const lines = await configOf({ idMap: null }, true);

    expect(lines).toContain('lxc.mount.auto = proc:mixed sys:mixed cgroup:rw:force');
    expect(lines).toContain('lxc.cap.drop = sys_time sys_module sys_rawio mac_admin mac_override');
    expect(lines).toContain('lxc.cgroup2.devices.deny = a');
    expect(lines).toContain('lxc.cgroup2.devices.allow = c 1:3 rwm');
  });

  it('gives a message queue of its own to a container that may mount one', async () => {
    const { layout } = await layoutOf(MOUNTS_V1);
    const options = ['rbind', 'create=dir', 'optional'];
    const extraMounts = [{ source: '/dev/mqueue', target: 'dev/mqueue', type: 'none', options }];
    const features = { cgroups: layout, apparmor: false, interceptsCalls: true, extraMounts };
    const entries = (spec: RuntimeSpec) => {
      const lines = lxcConfig({ container, spec, features }).split('\n');
      return lines.filter((line) => line.startsWith('lxc.mount.entry'));
    };

    expect(entries(PLAIN_SPEC)).toEqual([
      'lxc.mount.entry = /dev/mqueue dev/mqueue none rbind,create=dir,optional 0 0',
    ]);
    expect(entries({ ...PLAIN_SPEC, idMap: null })).toEqual([
      'lxc.mount.entry = mqueue dev/mqueue mqueue rw,relatime,create=dir,optional 0 0',
    ]);
  });

  it('takes interfaces of the host as nics', async () => {
    const lines = await configOf({
      nics: [
        { name: 'eth0', link: 'tap1', hwaddr: '00:16:3e:00:00:01', mtu: 1450 },
        {
          name: 'eth1',
          link: 'veth1',
          addresses: ['10.0.0.2/32', 'fd42::2/128'],
          gateways: ['169.254.0.1', 'fe80::1'],
        },
      ],
    });

    expect(lines.filter((line) => line.startsWith('lxc.net.'))).toEqual([
      'lxc.net.0.type = phys',
      'lxc.net.0.name = eth0',
      'lxc.net.0.flags = up',
      'lxc.net.0.link = tap1',
      'lxc.net.0.hwaddr = 00:16:3e:00:00:01',
      'lxc.net.0.mtu = 1450',
      'lxc.net.1.type = phys',
      'lxc.net.1.name = eth1',
      'lxc.net.1.flags = up',
      'lxc.net.1.link = veth1',
      'lxc.net.1.ipv4.address = 10.0.0.2/32 0.0.0.0',
      'lxc.net.1.ipv6.address = fd42::2/128',
      'lxc.net.1.ipv4.gateway = 169.254.0.1',
      'lxc.net.1.ipv6.gateway = fe80::1',
    ]);
  });

  it('escapes blanks in mounts, and puts raw lines last', async () => {
    const mounts = [{ source: '/my data', target: 'srv/x', type: 'none', options: ['bind', 'create=dir'] }];
    const lines = await configOf({ mounts, raw: 'lxc.signal.halt = SIGUSR1' });

    expect(lines).toContain('lxc.mount.entry = /my\\040data srv/x none bind,create=dir 0 0');
    expect(lines.slice(-2)).toEqual(['lxc.signal.halt = SIGUSR1', '']);
  });

  it('does not let a value become another setting', async () => {
    await expect(configOf({ environment: { A: 'x\nlxc.hook.pre-start = /bin/evil' } })).rejects.toThrow(
      'The value of lxc.environment must not contain line breaks',
    );
    await expect(configOf({ sysctl: { 'a\nlxc.hook.start': '/bin/evil' } })).rejects.toThrow(
      'must not contain line breaks',
    );
  });

  it('leaves out limits whose controller the host lacks', async () => {
    const lines = await configOf({ limits: { diskPriority: 5, processes: 10 } });

    expect(lines).toContain('lxc.cgroup.pids.max = 10');
    expect(lines.filter((line) => line.includes('blkio'))).toEqual([]);
  });

  it.each([
    'lxc.log.file = /x',
    'lxc.prlimit.nofile = 1',
    'lxc.net.0.type = veth',
    'no separator',
    'lxc.notaconfigkey = x',
  ])('refuses %s in raw.lxc', (raw) => {
    expect(() => validateRawConfig(raw)).toThrow(/./);
  });
});

const IO_COST = '8:0 enable=1 ctrl=auto model=linear\n';

describe('cgroups', () => {
  const limits = {
    memory: { bytes: 1000, enforce: 'hard' },
    cpuWeight: 50,
    cpuQuota: { quotaUs: 25_000, periodUs: 100_000 },
    cpuSet: '0,1',
    processes: 20,
    diskPriority: 0,
    hugepages: { '2MB': 4 },
  } as const;

  it('reads controllers of v1 and hybrid hosts by mount, of unified ones by file', async () => {
    const v1 = (await layoutOf(MOUNTS_V1)).layout;
    const v2 = (await layoutOf(MOUNTS_V2, V2_FILES)).layout;

    expect([v1.unified, v1.controllers.get('cpuacct'), v1.mountPoints.length]).toEqual([
      false,
      '/sys/fs/cgroup/cpu,cpuacct',
      5,
    ]);
    expect([v2.unified, v2.controllers.get('memory')]).toEqual([true, '/sys/fs/cgroup']);
  });

  it('translates limits for v1, with swap where the kernel counts it', async () => {
    const plain = (await layoutOf(MOUNTS_V1)).layout;
    const counting = await layoutOf(MOUNTS_V1, { '/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes': '1' });
    const show = (layout: CgroupLayout) => limitSettings(limits, layout).map(({ file, value }) => `${file}=${value}`);

    expect(show(counting.layout)).toEqual([
      'memory.limit_in_bytes=1000',
      'memory.memsw.limit_in_bytes=1000',
      'memory.soft_limit_in_bytes=900',
      'cpu.shares=512',
      'cpu.cfs_period_us=100000',
      'cpu.cfs_quota_us=25000',
      'cpuset.cpus=0,1',
      'pids.max=20',
      'hugetlb.2MB.limit_in_bytes=4',
    ]);
    expect(show(plain)).not.toContain('memory.memsw.limit_in_bytes=1000');
  });

  it('translates limits for unified hosts, a soft one as memory.high', async () => {
    const { layout } = await layoutOf(MOUNTS_V2, V2_FILES);
    const soft = { memory: { bytes: 1000, enforce: 'soft' }, swap: false } as const;
    const show = (given: typeof limits | typeof soft) =>
      limitSettings(given, layout).map(({ file, value }) => `${file}=${value}`);

    expect(show(limits)).toEqual([
      'memory.max=1000',
      'memory.swap.max=0',
      'cpu.weight=50',
      'cpu.max=25000 100000',
      'cpuset.cpus=0,1',
      'pids.max=20',
      'hugetlb.2MB.max=4',
    ]);
    expect(show(soft)).toEqual(['memory.high=1000', 'memory.swap.max=0']);
  });

  it('grants bytes of swap beside the memory, where the kernel counts them', async () => {
    const swapping = { memory: { bytes: 1000, enforce: 'hard' }, swap: 500 } as const;
    const counting = { '/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes': '1' };
    const [plain, v1, v2] = await Promise.all([
      layoutOf(MOUNTS_V1),
      layoutOf(MOUNTS_V1, counting),
      layoutOf(MOUNTS_V2, V2_FILES),
    ]);
    const show = ({ layout }: typeof v1) =>
      limitSettings(swapping, layout).map(({ file, value }) => `${file}=${value}`);

    expect(show(v1).slice(0, 2)).toEqual(['memory.limit_in_bytes=1000', 'memory.memsw.limit_in_bytes=1500']);
    expect(show(v2)).toEqual(['memory.max=1000', 'memory.swap.max=500']);
    await expect(layoutFor(plain.host, plain.layout, swapping)).rejects.toThrow('the kernel does not count swap');
    await expect(layoutFor(v1.host, v1.layout, { swap: 500 })).rejects.toThrow('it needs a hard limits.memory');
    await expect(layoutFor(v1.host, v1.layout, swapping)).resolves.toEqual(v1.layout);
    await expect(layoutFor(v2.host, v2.layout, { swap: 500 })).resolves.toEqual(v2.layout);
  });

  it('keeps a container without a limit of memory from swapping, whatever the priority', async () => {
    const [v1, v2] = [await layoutOf(MOUNTS_V1), await layoutOf(MOUNTS_V2, V2_FILES)];
    const settings = ({ layout }: typeof v1) => limitSettings({ swap: false, swapPriority: 3 }, layout);

    expect(settings(v1)).toEqual([{ controller: 'memory', file: 'memory.swappiness', value: '0' }]);
    expect(settings(v2)).toEqual([{ controller: 'memory', file: 'memory.swap.max', value: '0' }]);
  });

  it.each([
    ['io.weight', { '/sys/fs/cgroup/io.cost.qos': IO_COST }, ['io.weight=300']],
    ['bfq', { '/sys/block': null, '/sys/block/vda': null, ...BFQ }, ['io.bfq.weight=300']],
  ])('weighs disks by %s where the kernel has it', async (_what, files, expected) => {
    const { host, layout } = await layoutOf(MOUNTS_V2, { ...V2_FILES, ...files });
    const limits = { diskPriority: 3 };

    const known = await layoutFor(host, layout, limits);

    expect(limitSettings(limits, known).map(({ file, value }) => `${file}=${value}`)).toEqual(expected);
  });

  it('refuses weights of disks that the kernel would keep without an effect, and lets go of them', async () => {
    for (const text of ['', '8:0 enable=0 ctrl=auto\n']) {
      const { host, layout } = await layoutOf(MOUNTS_V2, { ...V2_FILES, '/sys/fs/cgroup/io.cost.qos': text });

      await expect(layoutFor(host, layout, { diskPriority: 3 })).rejects.toThrow('no disk is set up in io.cost.qos');
      await expect(layoutFor(host, layout, {}, { diskPriority: 3 })).resolves.toMatchObject({
        diskWeights: ['io.weight'],
      });
    }
  });

  it('refuses limits that the kernel cannot hold, and lets go of them', async () => {
    const { host, layout } = await layoutOf(MOUNTS_V2, { ...V2_FILES, ...HUGE });

    await expect(layoutFor(host, layout, { diskPriority: 3 })).rejects.toThrow('Cannot apply limits.disk.priority');
    await expect(layoutFor(host, layout, { hugepages: { '1MB': 1 } })).rejects.toThrow('no pages of that size');
    await expect(layoutFor(host, layout, { hugepages: { '2MB': 1, '1GB': 1 } })).resolves.toEqual(layout);
    await expect(layoutFor(host, layout, {}, { diskPriority: 3 })).resolves.toBeDefined();
  });

  it('knows which limits it can only ignore', async () => {
    const { layout } = await layoutOf(MOUNTS_V2, V2_FILES);

    expect(ignoredLimits({ swapPriority: 1, processes: 5, hugepages: { '2MB': 1 } }, layout)).toEqual([
      'limits.memory.swap.priority',
    ]);
    const few = { ...layout, controllers: new Map([['memory', '/sys/fs/cgroup']]) };
    expect(ignoredLimits({ processes: 5 }, few)).toEqual(['pids.max']);
  });

  it('finds the group of a container, also when its init moved into a part of it', () => {
    expect(payloadGroup('5:memory:/lxc.payload.c1\n1:name=systemd:/lxc.payload.c1/init.scope\n')).toBe(
      'lxc.payload.c1',
    );
    expect(payloadGroup('0::/lxc.payload.c1-1/init.scope\n')).toBe('lxc.payload.c1-1');
    expect(payloadGroup('0::/user.slice\n')).toBeUndefined();
  });

  it('reads figures, and leaves out what there is not', async () => {
    const v1 = await layoutOf(MOUNTS_V1, {
      '/sys/fs/cgroup/cpu,cpuacct/lxc.payload.c1/cpuacct.usage': '123\n',
      '/sys/fs/cgroup/memory/lxc.payload.c1/memory.usage_in_bytes': '456\n',
      '/sys/fs/cgroup/pids/lxc.payload.c1/pids.current': '7\n',
    });
    const v2 = await layoutOf(MOUNTS_V2, {
      ...V2_FILES,
      '/sys/fs/cgroup/lxc.payload.c1/cpu.stat': 'usage_usec 5\nuser_usec 1\n',
      '/sys/fs/cgroup/lxc.payload.c1/memory.current': '456\n',
      '/sys/fs/cgroup/lxc.payload.c1/memory.swap.current': '0\n',
    });

    expect(readUsage((path) => v1.host.files.get(path) ?? undefined, v1.layout, 'lxc.payload.c1')).toEqual({
      cpuNs: 123,
      memoryBytes: 456,
      processes: 7,
    });
    expect(readUsage((path) => v2.host.files.get(path) ?? undefined, v2.layout, 'lxc.payload.c1')).toEqual({
      cpuNs: 5000,
      memoryBytes: 456,
      swapBytes: 0,
    });
  });
});

describe('lines for AppArmor', () => {
  const signal = AbortSignal.timeout(10_000);

  it('are parsed before the container starts, with nothing loaded', async () => {
    const host = new FakeHost().on(/^apparmor_parser/, '');

    await checkRules(host, apparmorRules(' deny /a r,\n\n  deny /b w,\n'), signal);
    await checkRules(host, apparmorRules(undefined), signal);

    expect(host.commands.map(({ line, input }) => [line, input])).toEqual([
      [
        'apparmor_parser --skip-kernel-load --skip-cache --quiet',
        '#include <tunables/global>\nprofile check {\ndeny /a r,\ndeny /b w,\n}\n',
      ],
    ]);
  });

  it('that are no rules are refused in the words of the parser', async () => {
    const host = new FakeHost().fail(/^apparmor_parser/, 'AppArmor parser error, in stdin line 3: syntax error\n');

    await expect(checkRules(host, ['no rule'], signal)).rejects.toThrow(
      'Invalid raw.apparmor: AppArmor parser error, in stdin line 3: syntax error',
    );
  });
});

describe('system call filters', () => {
  const none = { denyDefault: false, denyCompat: false, deny: [], allow: [], intercept: [] };

  it('writes the default policy', () => {
    expect(
      seccompPolicy({ ...none, denyDefault: true }, 'x86_64')
        ?.split('\n')
        .slice(0, 4),
    ).toEqual(['2', 'denylist', '[all]', 'reject_force_umount  # comment this to allow umount -f;  not recommended']);
  });

  it('writes allow lists, additions, and the raw policy alone', () => {
    expect(seccompPolicy({ ...none, allow: ['read', 'write'] }, 'x86_64')).toBe('2\nallowlist\n[all]\nread\nwrite\n');
    expect(seccompPolicy({ ...none, deny: ['mount errno 1'] }, 'x86_64')).toBe('2\ndenylist\n[all]\nmount errno 1\n');
    expect(seccompPolicy({ ...none, denyCompat: true }, 'x86_64')).toContain(
      '[x86_64]\ncompat_sys_rt_sigaction errno 38',
    );
    expect(seccompPolicy({ ...none, denyDefault: true, raw: '2\nallowlist' }, 'x86_64')).toBe('2\nallowlist\n');
    expect(seccompPolicy(none, 'x86_64')).toBeUndefined();
  });

  it('have intercepted calls looked at, and let no filter of the container do so', () => {
    const held = [
      'seccomp errno 22 [1,8,SCMP_CMP_MASKED_EQ,8]',
      'setxattr notify [3,1,SCMP_CMP_EQ]',
      'lsetxattr notify [3,1,SCMP_CMP_EQ]',
    ];
    const intercept = ['setxattr'] as const;

    expect(seccompPolicy({ ...none, intercept }, 'x86_64')).toBe(['2', 'denylist', '[all]', ...held, ''].join('\n'));
    expect(seccompPolicy({ ...none, intercept, allow: ['read'] }, 'x86_64')).toBe(
      ['2', 'allowlist', '[all]', 'read', ...held, ''].join('\n'),
    );
    expect(
      seccompPolicy({ ...none, intercept: ['mknod'], denyDefault: true }, 'x86_64')
        ?.split('\n')
        .slice(-4),
    ).toEqual([
      held[0],
      'mknod notify [1,8192,SCMP_CMP_MASKED_EQ,61440]',
      'mknodat notify [2,8192,SCMP_CMP_MASKED_EQ,61440]',
      '',
    ]);
    expect(seccompPolicy({ ...none, intercept, raw: '2\nallowlist' }, 'x86_64')).toBe('2\nallowlist\n');
  });
});
