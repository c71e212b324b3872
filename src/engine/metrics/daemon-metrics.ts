// Figures of the daemon itself (GET /1.0/metrics).
import type { EngineDatabase } from '../db/database.ts';
import type { OperationRegistry } from '../operations/operations.ts';
import type { MetricFamily, MetricSet } from './open-metrics.ts';

const gauge = (name: string, help: string): MetricFamily => ({ name, type: 'gauge', help });
const OPERATIONS = gauge('lxd_operations_total', 'The number of running operations.');
const UPTIME = gauge('lxd_uptime_seconds', 'How long the daemon has been running.');
const WARNINGS = gauge('lxd_warnings_total', 'The number of active warnings.');
const INSTANCES = gauge('lxd_instances', 'The number of instances.');
const MEMORY = gauge('process_resident_memory_bytes', 'Resident memory of the daemon.');
const CPU: MetricFamily = {
  name: 'process_cpu_seconds_total',
  type: 'counter',
  help: 'User and system time of the daemon.',
};

export interface DaemonSources {
  readonly database: EngineDatabase;
  readonly operations: OperationRegistry;
}

export function addDaemon(set: MetricSet, { database, operations }: DaemonSources): void {
  const running = operations.list().filter(({ status }) => status === 'Running').length;
  const { user, system } = process.cpuUsage();
  set.add(OPERATIONS, running);
  set.add(UPTIME, Math.floor(process.uptime()));
  set.add(WARNINGS, database.warnings.list().filter(({ status }) => status !== 'resolved').length);
  for (const { name } of database.projects.list()) {
    set.add(INSTANCES, database.instances.names(name).length, { project: name, type: 'container' });
  }
  set.add(MEMORY, process.memoryUsage.rss());
  set.add(CPU, (user + system) / 1e6);
}
