import { afterEach, describe, expect, it } from 'vitest';
import { CpuBalancer } from '#src/engine/instances/cpu-balancer.ts';
import { Supervisor } from '#src/engine/instances/supervisor.ts';
import { silentLog } from '#src/lib/silent-log.ts';
import { FakeRuntime } from '#test/fakes/fake-runtime.ts';

const SIGNAL = new AbortController().signal;
const ending: Supervisor[] = [];

async function running() {
  const runtime = new FakeRuntime();
  const supervisor = new Supervisor(runtime, silentLog);
  ending.push(supervisor);
  const machine = { online: '0-1\n' };
  const readFile = async (): Promise<string> => {
    if (machine.online === '') throw new Error('cannot be read');
    return machine.online;
  };
  const balancer = new CpuBalancer({ host: { readFile }, log: silentLog, runtime, supervisor });
  const container = {
    name: 'c1',
    configPath: '/c1/lxc.conf',
    logPath: '/c1/lxc.log',
    consoleLogPath: '/c1/console.log',
  };
  await runtime.start(container, SIGNAL);
  const life = supervisor.attach({ id: 1, project: 'default', name: 'c1' }, { container, cpuLimit: undefined });
  return { runtime, balancer, life, machine, given: () => [...runtime.limits.values()].at(-1) };
}

describe('the CPUs of a container that runs', () => {
  afterEach(() => {
    for (const supervisor of ending.splice(0)) supervisor.stop();
  });

  it('change with its limit, and are all of them without one', async () => {
    const { balancer, life, given } = await running();

    await balancer.setLimit(life, '1-1');
    expect(given()).toEqual({ cpuSet: '1' });
    await balancer.setLimit(life, undefined);
    expect(given()).toEqual({ cpuSet: '0,1' });
  });

  it('are told to be as they were when the kernel does not take them', async () => {
    const { balancer, life, runtime } = await running();
    runtime.refusal = 'device or resource busy';

    await expect(balancer.setLimit(life, '1')).rejects.toMatchObject({
      kind: 'conflict',
      message: 'The CPUs of c1 cannot be changed: device or resource busy',
    });
    expect(life.cpus).toBeUndefined();
  });

  it('are no secret failure when the host does not tell which it has', async () => {
    const { balancer, life, machine } = await running();
    machine.online = '';

    await expect(balancer.setLimit(life, '1')).rejects.toThrow('cannot be read');
  });
});
