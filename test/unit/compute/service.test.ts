// The service itself: who it is, which version it advertises, its heartbeat, its command line.
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { checkCompute } from '#src/compute/service/check.ts';
import { parseCommandLine } from '#src/compute/service/command-line.ts';
import { Heartbeat } from '#src/compute/service/heartbeat.ts';
import { type IdentityQuestion, ownNodeUuid, readNodeUuid } from '#src/compute/service/identity.ts';
import { runProgram } from '#src/compute/service/program.ts';
import { registerService } from '#src/compute/service/service-record.ts';
import { chooseServiceVersion } from '#src/compute/service/service-version.ts';
import { silentLog } from '#src/lib/log.ts';
import { RequestContext } from '#src/nova/context.ts';
import { createObject, type NovaObject } from '#src/nova/objects/object.ts';
import { RecordingLog, testConfig } from '#test/fakes/compute-harness.ts';
import { FakeConductor, listOf } from '#test/fakes/fake-conductor.ts';
import { remote } from '#test/fakes/fake-control-plane.ts';

const context = RequestContext.admin();
const UUID = '11111111-1111-4111-8111-111111111111';
const OTHER = '22222222-2222-4222-8222-222222222222';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'compute-service-'));
});
afterEach(async () => {
  vi.useRealTimers();
  await rm(folder, { recursive: true });
});

function service(fields: Record<string, unknown> = {}): NovaObject<'Service'> {
  const object = createObject('Service', { id: 3, host: 'h', binary: 'nova-compute', version: 64, ...fields });
  object.resetChanges();
  return object;
}

describe('identity', () => {
  const node = (fields: Record<string, unknown> = {}) =>
    createObject('ComputeNode', { id: 1, uuid: UUID, host: 'h', hypervisor_hostname: 'h', ...fields });

  function question(fields: Partial<IdentityQuestion>, nodes: readonly NovaObject[] = []): IdentityQuestion {
    const conductor = new FakeConductor()
      .on('ComputeNodeList.get_all_by_uuids', () => listOf('ComputeNodeList', nodes))
      .on('ComputeNodeList.get_all_by_host', () => listOf('ComputeNodeList', nodes));
    return {
      asking: { conductor, context },
      folders: { statePath: join(folder, 'state'), configFolders: [join(folder, 'etc')] },
      host: 'h',
      nodeName: 'h',
      service: undefined,
      hasGuests: false,
      log: silentLog,
      ...fields,
    };
  }

  async function store(where: string, content: string): Promise<void> {
    await mkdir(join(folder, where), { recursive: true });
    await writeFile(join(folder, where, 'compute_id'), content);
  }

  it('of a new host is made once and found again', async () => {
    const first = await ownNodeUuid(question({}));
    const second = await ownNodeUuid(question({ service: service({ version: 70 }) }));

    expect(second).toBe(first);
    expect((await readFile(join(folder, 'state', 'compute_id'), 'utf8')).trim()).toBe(first);
  });

  it('may lie beside the configuration, and all copies must agree', async () => {
    await store('etc', `  ${UUID.toUpperCase()}\n`);
    expect(await ownNodeUuid(question({}))).toBe(UUID);

    await store('state', OTHER);
    await expect(ownNodeUuid(question({}))).rejects.toThrow('differ');
  });

  it('is refused when the file holds something else', async () => {
    await store('state', 'hello');

    await expect(readNodeUuid({ statePath: join(folder, 'state'), configFolders: [] })).rejects.toThrow(
      'not hold a uuid',
    );
  });

  it('is not made anew for a host that Nova knows', async () => {
    await expect(ownNodeUuid(question({ service: service({ version: 65 }) }))).rejects.toThrow(
      'compute_id file is lost',
    );
    await expect(ownNodeUuid(question({ hasGuests: true }))).rejects.toThrow('was it renamed');
  });

  it('is taken over from the only compute node of an older service', async () => {
    expect(await ownNodeUuid(question({ service: service() }, [node()]))).toBe(UUID);
    expect((await readFile(join(folder, 'state', 'compute_id'), 'utf8')).trim()).toBe(UUID);
  });

  it('is not guessed among several nodes', async () => {
    const nodes = [node(), node({ uuid: OTHER })];

    await expect(ownNodeUuid(question({ service: service() }, nodes))).rejects.toThrow('has 2 compute nodes');
  });

  it('is refused, and not stored, when the node has another name or host in Nova', async () => {
    await expect(ownNodeUuid(question({ service: service(), nodeName: 'new' }, [node()]))).rejects.toThrow(
      'was it renamed',
    );
    await store('etc', UUID);
    await expect(ownNodeUuid(question({}, [node({ host: 'other' })]))).rejects.toThrow('of host other');

    expect(await readNodeUuid({ statePath: join(folder, 'state'), configFolders: [] })).toBeUndefined();
  });
});

describe('the service version', () => {
  const now = new Date();
  const old = new Date(Date.now() - 3_600_000);

  function choose(
    conductors: readonly (readonly [number, Date | null])[],
    {
      computes = 0,
      present = 0,
      override = null,
    }: { computes?: number; present?: number; override?: number | null } = {},
  ): Promise<number> {
    const rows = conductors.map(([version, last_seen_up]) => service({ version, last_seen_up }));
    const conductor = new FakeConductor()
      .on('ServiceList.get_by_binary', () => listOf('ServiceList', rows))
      .on('Service.get_minimum_version', () => computes);
    return chooseServiceVersion({
      asking: { conductor, context },
      override,
      present,
      serviceDownTimeMs: 60_000,
      log: silentLog,
    });
  }

  it.each([
    ['that of the conductor', [[66, now]], {}, 66],
    [
      'the lowest of the living conductors',
      [
        [70, now],
        [68, now],
        [61, old],
      ],
      {},
      68,
    ],
    [
      'that of silent conductors when all are silent',
      [
        [68, old],
        [70, null],
      ],
      {},
      68,
    ],
    ['never above what this program knows', [[99, now]], {}, 74],
    ['never below the computes of the cell', [[66, now]], { computes: 68 }, 68],
    ['never lowered', [[66, now]], { present: 70 }, 70],
    ['what the operator says', [[66, now]], { override: 72 }, 72],
  ] as const)('is %s', async (_name, conductors, options, version) => {
    expect(await choose(conductors, options)).toBe(version);
  });

  it('of a control plane older than Zed is refused', async () => {
    await expect(choose([[61, now]])).rejects.toThrow('Zed (64) is the oldest');
    await expect(choose([])).rejects.toThrow('Zed (64) is the oldest');
  });
});

describe('the service record', () => {
  it('is made with everything Nova needs, and kept when there is one', async () => {
    const conductor = new FakeConductor();
    const asking = { conductor, context };

    await registerService(asking, 'h', undefined, async () => 66);
    await registerService(asking, 'h', service({ version: 66 }), async () => 66);
    await registerService(asking, 'h', service({ version: 64 }), async () => 66);

    expect(conductor.names).toEqual(['Service.create', 'Service.save']);
    expect(conductor.calls[0]?.changes).toEqual({
      host: 'h',
      binary: 'nova-compute',
      topic: 'compute',
      report_count: 0,
      version: 66,
    });
    expect(conductor.calls[1]?.changes).toEqual({ version: 66 });
  });

  it('is tried once more with a new choice when the cell has become newer', async () => {
    const conductor = new FakeConductor().on('Service.create', ({ changes }) => {
      if (changes['version'] === 66) throw remote('ServiceTooOld', 'too old');
    });
    const versions = [66, 68];

    await registerService({ conductor, context }, 'h', undefined, async () => versions.shift() ?? 0);

    expect(conductor.named('Service.create').map(({ changes }) => changes['version'])).toEqual([66, 68]);
  });

  it('of a process that was faster is taken over', async () => {
    const conductor = new FakeConductor()
      .on('Service.create', () => {
        throw remote('ServiceBinaryExists', 'exists');
      })
      .on('Service.get_by_host_and_binary', () => service({ version: 64 }));

    const record = await registerService({ conductor, context }, 'h', undefined, async () => 66);

    expect(record.get('id')).toBe(3);
    expect(conductor.named('Service.save')[0]?.changes).toEqual({ version: 66 });
  });
});

describe('the heartbeat', () => {
  async function beat(conductor: FakeConductor, log = new RecordingLog()) {
    vi.useFakeTimers();
    const record = service({ report_count: 41 });
    const onAnsweredAgain = vi.fn<() => void>();
    const heartbeat = new Heartbeat(record, { conductor, intervalMs: 10_000, log, onAnsweredAgain });
    await heartbeat.start();
    return { heartbeat, record, log, onAnsweredAgain };
  }

  it('comes after 5 s and then every interval, with a count that grows from the stored one', async () => {
    const conductor = new FakeConductor();
    const { heartbeat } = await beat(conductor);

    await vi.advanceTimersByTimeAsync(4999);
    const early = conductor.calls.length;
    await vi.advanceTimersByTimeAsync(20_001);
    await heartbeat.stop(AbortSignal.timeout(1000));
    await vi.advanceTimersByTimeAsync(60_000);

    expect(early).toBe(0);
    expect(conductor.named('Service.save').map(({ changes }) => changes)).toEqual([
      { report_count: 42 },
      { report_count: 43 },
      { report_count: 44 },
    ]);
  });

  it('outlives a conductor that is away, says so once, and says when it is back', async () => {
    let isAway = true;
    const conductor = new FakeConductor().on('Service.save', () => {
      if (isAway) throw new Error('no answer');
    });
    const { heartbeat, log, onAnsweredAgain } = await beat(conductor);

    await vi.advanceTimersByTimeAsync(45_000);
    expect(onAnsweredAgain).not.toHaveBeenCalled();
    isAway = false;
    await vi.advanceTimersByTimeAsync(20_000);
    await heartbeat.stop(AbortSignal.timeout(1000));

    expect(onAnsweredAgain).toHaveBeenCalledTimes(1);
    expect(conductor.named('Service.save').at(-1)?.changes).toEqual({ report_count: 48 });
    expect(log.lines.map(({ level, message }) => `${level} ${message}`)).toEqual([
      'error heartbeat failed, this host may be seen as down',
      'info heartbeat is answered again',
    ]);
  });

  it('does not make up for beats that a slow conductor cost', async () => {
    const conductor = new FakeConductor().on(
      'Service.save',
      () => new Promise((resolve) => setTimeout(resolve, 35_000)),
    );
    const { heartbeat } = await beat(conductor);

    await vi.advanceTimersByTimeAsync(5000 + 35_000 + 100);
    const stopping = heartbeat.stop(AbortSignal.timeout(1000));
    await vi.advanceTimersByTimeAsync(40_000);
    await stopping;

    expect(conductor.named('Service.save')).toHaveLength(2);
  });
});

describe('the command line', () => {
  it('keeps files and folders in the order given', () => {
    const { sources, action } = parseCommandLine([
      '--config-dir',
      'd',
      '--config-file=a',
      '--config-file',
      'b',
      '--check',
    ]);

    expect(sources.map(({ path }) => path)).toEqual(['d', 'a', 'b']);
    expect(action).toBe('check');
  });

  it('refuses what it does not know', () => {
    expect(() => parseCommandLine(['--what'])).toThrow('--help');
    expect(() => parseCommandLine(['start'])).toThrow('unexpected argument start');
    expect(() => parseCommandLine(['--config-file'])).toThrow('--help');
  });

  async function run(...args: string[]) {
    const out: string[] = [];
    const err: string[] = [];
    const code = await runProgram({
      args,
      environment: {},
      hostname: 'h',
      homeFolder: folder,
      tempFolder: folder,
      print: (line) => void out.push(line),
      complain: (line) => void err.push(line),
      until: new AbortController().signal,
      onReload: () => {},
    });
    return { code, out: out.join('\n'), err: err.join('\n') };
  }

  it('teaches, tells its version, and explains a configuration that cannot be used', async () => {
    const conf = join(folder, 'nova.conf');
    await writeFile(conf, '[DEFAULT]\nreport_interval = x\n[lxd]\nendpoint = ftp://x\n');

    const help = await run('--help');
    const version = await run('--version');
    const bad = await run('--config-file', conf);

    expect(help).toMatchObject({ code: 0, out: expect.stringContaining('--check') });
    expect(version.out).toMatch(/^\d+\.\d+\.\d+/);
    expect(bad.code).toBe(1);
    expect(bad.err).toContain(`${conf}:2: [DEFAULT] report_interval: must be a whole number, not "x"`);
    expect(bad.err).toContain(`${conf}:4: [lxd] endpoint`);
    expect((await run('--nonsense')).code).toBe(1);
  });

  it('--check says line by line what is missing', async () => {
    const config = testConfig(
      `transport_url = rabbit://g:g@127.0.0.1:1/\ncompute_driver = fake\nstate_path = ${folder}`,
    );
    const lines: string[] = [];

    const isGood = await checkCompute(config, (line) => void lines.push(line), 300);

    const out = lines.join('\n');
    expect(isGood).toBe(false);
    expect(out).toMatch(/^ok {3}configuration/);
    expect(out).toMatch(/^FAIL conductor .*ECONNREFUSED/m);
    expect(out).toMatch(/^FAIL identity .*new host/m);
    expect(out).toMatch(/^FAIL keystone/m);
    expect(out).toMatch(/^ok {3}engine .*10 CPUs/m);
  });
});
