// An engine with instances on a fake runtime and storage in memory: everything of the engine is real but the machine.
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { deviceDrivers } from '#drivers/devices/registry.ts';
import { nicDrivers } from '#drivers/nic/registry.ts';
import type { StorageContext, StorageDriver } from '#drivers/storage/driver.ts';
import { createEngine, type Engine } from '#src/engine/engine.ts';
import { createEvents } from '#src/engine/events/events.ts';
import { createInstances, type InstancesOfEngine } from '#src/engine/instances/create-instances.ts';
import type { Instances } from '#src/engine/instances/instances.ts';
import type { NewInstanceRequest, StateChange } from '#src/engine/instances/requests.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { FakeRuntime } from '#test/fakes/fake-runtime.ts';
import { MemoryStorage } from '#test/fakes/memory-storage.ts';

const owners = { uidBase: process.getuid?.() ?? 0, gidBase: process.getgid?.() ?? 0, size: 65_536 };

/** Storage in memory whose mounted roots are directories that can be written to; remembers what is mounted. */
export class MountableStorage extends MemoryStorage {
  readonly mounted = new Set<string>();

  override create(context: StorageContext): StorageDriver {
    const driver = super.create(context);
    return {
      ...driver,
      mountVolume: async (volume, idMap, signal) => {
        const root = await driver.mountVolume(volume, idMap, signal);
        await mkdir(root.rootfsPath, { recursive: true });
        this.mounted.add(volume.name);
        return { ...root, owners };
      },
      unmountVolume: async ({ name }) => void this.mounted.delete(name),
    };
  }
}

export interface InstancesUnderTest extends AsyncDisposable {
  readonly root: string;
  readonly engine: Engine<InstancesOfEngine>;
  readonly instances: Instances;
  readonly runtime: FakeRuntime;
  readonly storage: MountableStorage;
  /** Actions of lifecycle events, in order. */
  readonly events: string[];
  /** Rejects with the operation's error. */
  done(operation: string): Promise<void>;
  create(name: string, changes?: Partial<NewInstanceRequest>): Promise<void>;
  change(name: string, change: Partial<StateChange>): Promise<void>;
  /** Ends this engine without touching what runs, and starts another on the same machine. */
  restart(whileDown?: () => void): Promise<InstancesUnderTest>;
}

interface Machine {
  readonly root: string;
  readonly runtime: FakeRuntime;
  readonly storage: MountableStorage;
}

export async function startInstances(machine?: Machine): Promise<InstancesUnderTest> {
  const root = machine?.root ?? (await mkdtemp(join(tmpdir(), 'lighter-instances-')));
  const runtime = machine?.runtime ?? new FakeRuntime();
  const storage = machine?.storage ?? new MountableStorage();
  const hub = createEvents();
  const events: string[] = [];
  hub.subscribe({ types: new Set(['lifecycle']) }, (_text, { metadata }) => events.push(String(metadata['action'])));
  const engine = await createEngine({
    root,
    host: new LinuxHost(),
    log: silentLog,
    events: hub,
    version: '0',
    networkModules: {},
    storageModules: { memory: storage },
    runtimeVersion: async () => '5.0.2',
    defaultIdMap: async () => owners,
    unpack: async () => undefined,
    createInstances: (context) =>
      createInstances(context, {
        runtime: { name: 'fake', create: () => runtime },
        nics: nicDrivers,
        devices: deviceDrivers,
      }),
    firstPool: { driver: 'memory', config: {} },
  });
  for (const service of engine.services) await service.start(AbortSignal.timeout(10_000));
  const { instances } = engine.instances;
  const end = async () => {
    for (const service of engine.services.toReversed()) await service.stop(AbortSignal.timeout(1000));
  };
  const done = async (operation: string) => {
    const { err } = await engine.operations.wait(operation, AbortSignal.timeout(5000));
    if (err !== '') throw new Error(err);
  };
  return {
    root,
    engine,
    instances,
    runtime,
    storage,
    events,
    done,
    create: (name, changes = {}) => done(instances.create('default', { ...newInstance(name), ...changes }).operation),
    change: (name, change) => {
      const whole: StateChange = { action: 'start', timeoutSeconds: -1, force: false, stateful: false, ...change };
      return done(instances.changeState(instances.get('default', name), whole));
    },
    async restart(whileDown) {
      await end();
      whileDown?.();
      return startInstances({ root, runtime, storage });
    },
    async [Symbol.asyncDispose]() {
      await end();
      // what was started and not waited for may still write
      await rm(root, { recursive: true, force: true, maxRetries: 10, retryDelay: 20 });
    },
  };
}

export function newInstance(name: string): NewInstanceRequest {
  return {
    name,
    architecture: '',
    config: {},
    devices: {},
    ephemeral: false,
    description: '',
    source: { type: 'none' },
    instanceType: '',
    stateful: false,
    start: false,
  };
}
