// LVM's command lines, and what is read of its reports and complaints; these were recorded with LVM 2.03.31.
import { beforeEach, describe, expect, it } from 'vitest';
import { devicePath, Lvm } from '#src/host/lvm.ts';
import { parseGroups, parseVolumes } from '#src/host/lvm-reports.ts';
import { FakeHost } from '#test/fakes/fake-host.ts';

const signal = AbortSignal.timeout(10_000);
const WITHOUT_UDEV = '--config activation{udev_sync=0 udev_rules=0}';

let host: FakeHost;
let lvm: Lvm;

beforeEach(() => {
  host = new FakeHost();
  host.files.set('/run/udev/control', '');
  lvm = new Lvm(host);
});

const report = (kind: string, rows: readonly object[], log: readonly object[] = []): string => {
  return JSON.stringify({ report: [{ [kind]: rows }], log });
};

const missing = (message: string): string => {
  return report(
    'lv',
    [],
    [
      { log_type: 'error', log_message: message },
      { log_type: 'status', log_message: 'failure' },
    ],
  );
};

describe('the commands of LVM', () => {
  it('make a thin pool of all that is free, and volumes in it', async () => {
    await lvm.createGroup('vg', '/dev/loop7', { tags: ['a', 'b'] }, signal);
    await lvm.createThinPool('vg', 'LXDThinPool', { metadataBytes: 1048576, stripes: ['--stripes', '2'] }, signal);
    await lvm.create('vg', 'work', { sizeBytes: 4194304, pool: 'LXDThinPool', tags: ['t'] }, signal);
    await lvm.snapshot('vg', 'containers_c1', { of: 'images_f', isReadonly: false }, signal);
    await lvm.snapshot('vg', 'containers_c1-s', { of: 'containers_c1', isReadonly: true, tags: ['t'] }, signal);

    expect(host.calls).toEqual([
      'vgcreate --addtag a --addtag b -- vg /dev/loop7',
      'lvcreate --yes --wipesignatures y --extents 100%FREE --poolmetadatasize 1048576b --stripes 2 --thinpool LXDThinPool -- vg',
      'lvcreate --yes --wipesignatures y --name work --addtag t --thin --virtualsize 4194304b -- vg/LXDThinPool',
      'lvcreate --snapshot --permission rw --setactivationskip y --name containers_c1 -- vg/images_f',
      'lvcreate --snapshot --permission r --setactivationskip y --name containers_c1-s --addtag t -- vg/containers_c1',
    ]);
  });

  it('activate whatever the volume says of that, and let it go', async () => {
    await lvm.activate('vg', 'v', signal);
    await lvm.deactivate('vg', 'v', signal);
    await lvm.seal('vg', 'v', signal);
    await lvm.rename('vg', 'v', { to: 'w' }, signal);
    await lvm.resize('vg', 'w', { sizeBytes: 8388608 }, signal);
    await lvm.remove('vg', 'w', signal);

    expect(host.calls).toEqual([
      'lvchange --activate y --ignoreactivationskip -- vg/v',
      'lvchange --activate n -- vg/v',
      'lvchange --permission r --setactivationskip y -- vg/v',
      'lvrename -- vg v w',
      'lvresize --force --size 8388608b -- vg/w',
      'lvremove --force -- vg/w',
    ]);
  });

  it('do without udev where there is none', async () => {
    host.files.delete('/run/udev/control');

    await lvm.activate('vg', 'v', signal);

    expect(host.calls).toEqual([`lvchange ${WITHOUT_UDEV} --activate y --ignoreactivationskip -- vg/v`]);
  });

  it.each([
    ['  Snapshot origin LV images_nope not found in Volume group tvg.\n', 'not_found'],
    ['  Failed to find logical volume "tvg/nope"\n', 'not_found'],
    ['  Existing logical volume "containers_c1" not found in volume group "tvg"\n', 'not_found'],
    ['  Logical Volume "containers_c1" already exists in volume group "tvg"\n', 'conflict'],
    ['  Logical volume tvg/containers_c1 contains a filesystem in use.\n', 'unavailable'],
    ['  Names including "_tdata" are reserved. Please choose a different LV name.\n', 'invalid'],
    ['  something else\n', 'internal'],
  ])('complain: %s', async (stderr, kind) => {
    host.fail(
      /^lvcreate/,
      `  WARNING: Sum of all thin volume sizes (20.00 GiB) exceeds the size of thin pool.\n${stderr}`,
      5,
    );

    const made = lvm.snapshot('tvg', 'containers_c1', { of: 'images_f', isReadonly: false }, signal);

    await expect(made).rejects.toMatchObject({ kind });
    await expect(made).rejects.toThrow(stderr.trim());
  });

  it('take what is absent for removed, and what is in use not', async () => {
    host.fail(/^lvremove/, '  Failed to find logical volume "vg/v"\n', 5);
    await lvm.remove('vg', 'v', signal);

    host.fail(/^lvremove/, '  Logical volume vg/v in use.\n', 5);
    await expect(lvm.remove('vg', 'v', signal)).rejects.toMatchObject({ kind: 'unavailable' });
  });
});

describe('reports of LVM', () => {
  it('tell what a group has, in one row for each of its devices', () => {
    const row = { vg_name: 'tvg', vg_size: '1069547520', vg_free: '0', vg_extent_size: '4194304', vg_tags: 'a,b=c' };

    const text = report('vg', [
      { ...row, pv_name: '/dev/loop0' },
      { ...row, pv_name: '/dev/loop1' },
    ]);

    expect(parseGroups(text)).toEqual({
      name: 'tvg',
      sizeBytes: 1069547520,
      freeBytes: 0,
      extentBytes: 4194304,
      tags: ['a', 'b=c'],
      devices: ['/dev/loop0', '/dev/loop1'],
    });
  });

  it('tell pools, volumes and snapshots apart', () => {
    const text = report('lv', [
      {
        lv_name: 'LXDThinPool',
        lv_size: '1061158912',
        data_percent: '7.02',
        lv_attr: 'twi-aotz--',
        pool_lv: '',
        origin: '',
        lv_tags: '',
      },
      {
        lv_name: 'images_f',
        lv_size: '10737418240',
        data_percent: '',
        lv_attr: 'Vri---tz-k',
        pool_lv: 'LXDThinPool',
        origin: '',
        lv_tags: 'x',
      },
      {
        lv_name: 'containers_c1',
        lv_size: '10737418240',
        data_percent: '0.69',
        lv_attr: 'Vwi-aotz-k',
        pool_lv: 'LXDThinPool',
        origin: 'images_f',
        lv_tags: '',
      },
    ]);

    expect(parseVolumes(text)).toEqual([
      expect.objectContaining({ name: 'LXDThinPool', isThinPool: true, usedPercent: 7.02, pool: undefined }),
      expect.objectContaining({
        name: 'images_f',
        isReadonly: true,
        isActive: false,
        usedPercent: undefined,
        tags: ['x'],
      }),
      expect.objectContaining({
        name: 'containers_c1',
        isReadonly: false,
        isActive: true,
        origin: 'images_f',
        pool: 'LXDThinPool',
      }),
    ]);
  });

  it('say in themselves that there is nothing of the name', async () => {
    host.on(/^vgs/, () => ({ exitCode: 5, stdout: missing('Volume group "nope" not found') }));
    host.on(/^lvs/, () => ({ exitCode: 5, stdout: missing('Failed to find logical volume "q/nope"') }));

    expect(await lvm.group('nope', signal)).toBeUndefined();
    expect(await lvm.volume('q', 'nope', signal)).toBeUndefined();
  });

  it('that fail for another reason are failures', async () => {
    host.on(/^lvs/, () => ({ exitCode: 5, stdout: missing('Failed to lock'), stderr: '' }));

    await expect(lvm.volumes('q', signal)).rejects.toThrow('lvs: Failed to lock');
    host.on(/^lvs/, 'no JSON');
    await expect(lvm.volumes('q', signal)).rejects.toThrow('cannot read what LVM reports');
  });
});

it('finds a device where the kernel has it', () => {
  expect(devicePath('my-vg', 'containers_c1--a-snap')).toBe('/dev/mapper/my--vg-containers_c1----a--snap');
});
