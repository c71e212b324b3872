// Finer figures of a control group: memory by kind, time by mode, transfers by disk; v1 and v2.
import type { RuntimeDisk, RuntimeStatistics } from '../driver.ts';
import type { CgroupLayout, ReadKernelFile } from './cgroups.ts';

const TICK_NS = 10_000_000;
/** What cgroup v1 says for "no limit", and beyond what any machine has. */
const UNLIMITED = 2 ** 60;

export function readStatistics(readFile: ReadKernelFile, layout: CgroupLayout, group: string): RuntimeStatistics {
  const read = (controller: string, file: string) => {
    const mount = layout.controllers.get(controller);
    return mount === undefined ? '' : (readFile(`${mount}/${group}/${file}`) ?? '');
  };
  const memory = fields(read('memory', 'memory.stat'));
  const limit = Number.parseInt(read('memory', layout.unified ? 'memory.max' : 'memory.limit_in_bytes'), 10);
  const cpu = layout.unified ? unifiedCpu(read('cpu', 'cpu.stat')) : v1Cpu(read('cpuacct', 'cpuacct.stat'));
  const disks = layout.unified
    ? unifiedDisks(read('io', 'io.stat'))
    : v1Disks(read('blkio', 'blkio.throttle.io_service_bytes'), read('blkio', 'blkio.throttle.io_serviced'));
  return { memory, ...cpu, disks, ...(limit > 0 && limit < UNLIMITED && { memoryLimitBytes: limit }) };
}

function fields(text: string): Readonly<Record<string, number>> {
  return Object.fromEntries(
    [...text.matchAll(/^(\S+) (\d+)$/gmu)].map(([, name = '', value]) => [name, Number(value)]),
  );
}

function v1Cpu(stat: string): Pick<RuntimeStatistics, 'cpuUserNs' | 'cpuSystemNs'> {
  const { user, system } = fields(stat);
  return {
    ...(user !== undefined && { cpuUserNs: user * TICK_NS }),
    ...(system !== undefined && { cpuSystemNs: system * TICK_NS }),
  };
}

function unifiedCpu(stat: string): Pick<RuntimeStatistics, 'cpuUserNs' | 'cpuSystemNs'> {
  const { user_usec: user, system_usec: system } = fields(stat);
  return {
    ...(user !== undefined && { cpuUserNs: user * 1000 }),
    ...(system !== undefined && { cpuSystemNs: system * 1000 }),
  };
}

function unifiedDisks(stat: string): readonly RuntimeDisk[] {
  return [...stat.matchAll(/^(\d+:\d+) (.*)$/gmu)].map(([, device = '', rest = '']) => {
    const value = (name: string) => Number(new RegExp(`\\b${name}=(\\d+)`, 'u').exec(rest)?.[1] ?? 0);
    return {
      device,
      readBytes: value('rbytes'),
      reads: value('rios'),
      writtenBytes: value('wbytes'),
      writes: value('wios'),
    };
  });
}

function v1Disks(bytes: string, counts: string): readonly RuntimeDisk[] {
  const value = (text: string, device: string, what: string) => {
    return Number(new RegExp(`^${device} ${what} (\\d+)$`, 'mu').exec(text)?.[1] ?? 0);
  };
  const devices = new Set([...bytes.matchAll(/^(\d+:\d+) /gmu)].map(([, device = '']) => device));
  return [...devices].map((device) => ({
    device,
    readBytes: value(bytes, device, 'Read'),
    reads: value(counts, device, 'Read'),
    writtenBytes: value(bytes, device, 'Write'),
    writes: value(counts, device, 'Write'),
  }));
}
