import { defineConfig } from 'vitest/config';
import { timeFactor } from './test/time-factor.ts';

/** Unit and contract tests run side by side; integration tests use real tools, one file at a time. */
const common = { pool: 'forks', testTimeout: 10_000 } as const;

/** Of machines that are slow: LIGHTERVISOR_TIME_FACTOR. */
const factor = timeFactor();

/** Half the time of these tests was loading the same modules in a process per file. What they share, `clean-worker` watches. */
const shared = { ...common, isolate: false, maxWorkers: '100%', setupFiles: ['test/clean-worker.ts'] } as const;

/** Tests that take many minutes. */
const long = { ...common, fileParallelism: false, runner: 'test/deadline-runner.ts' } as const;

/** Integration tests of messages alone, with a RabbitMQ of their own: they can run beside those that mount, and start containers. */
const WIRE = ['test/integration/messaging/**/*.test.ts', 'test/integration/nova/**/*.test.ts'];

export default defineConfig({
  test: {
    projects: [
      {
        test: { ...shared, name: 'unit', include: ['test/unit/**/*.test.ts', 'packages/*/test/**/*.test.ts'] },
      },
      { test: { ...shared, name: 'contract', include: ['test/contract/**/*.test.ts'], testTimeout: 30_000 } },
      {
        test: {
          ...long,
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          exclude: WIRE,
          globalSetup: ['test/integration/zfs-fuse.ts'],
          testTimeout: 120_000 * factor,
          hookTimeout: 120_000 * factor,
        },
      },
      {
        test: {
          ...long,
          name: 'wire',
          include: WIRE,
          testTimeout: 120_000 * factor,
          hookTimeout: 120_000 * factor,
        },
      },
      {
        test: {
          ...common,
          name: 'cloud-init',
          include: ['test/cloud-init/**/*.test.ts'],
          fileParallelism: false,
          testTimeout: 240_000,
          hookTimeout: 1_200_000,
        },
      },
      {
        test: {
          ...long,
          name: 'openstack',
          include: ['test/openstack/**/*.test.ts'],
          testTimeout: 600_000,
          hookTimeout: 900_000,
        },
      },
    ],
  },
});
