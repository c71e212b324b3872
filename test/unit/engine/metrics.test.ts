// Metrics as Prometheus reads them.
import { describe, expect, it } from 'vitest';
import { readStatistics } from '#drivers/runtime/lxc/statistics.ts';
import { addInstance } from '#src/engine/metrics/instance-metrics.ts';
import { MetricSet } from '#src/engine/metrics/open-metrics.ts';

const COUNTERS = {
  bytesReceived: 1,
  bytesSent: 2,
  packetsReceived: 3,
  packetsSent: 4,
  errorsReceived: 5,
  errorsSent: 6,
  droppedReceived: 7,
  droppedSent: 8,
};

describe('metrics', () => {
  it('are families in order with one head each, and an end', () => {
    const set = new MetricSet();
    const family = (name: string) => ({ name, type: 'gauge', help: `About ${name}.` }) as const;

    set.add(family('b'), 1, { name: 'x"y\\z\n' });
    set.add(family('a'), 2);
    set.add(family('b'), 3);
    set.add(family('c'), undefined);

    expect(set.text()).toBe(
      [
        '# HELP a About a.',
        '# TYPE a gauge',
        'a 2',
        '# HELP b About b.',
        '# TYPE b gauge',
        'b{name="x\\"y\\\\z\\n"} 1',
        'b 3',
        '# EOF',
        '',
      ].join('\n'),
    );
  });

  it('of an instance have the names and labels of LXD', () => {
    const set = new MetricSet();
    const memory = { usage: 100, usagePeak: 0, swapUsage: 5, swapUsagePeak: 0 };
    const network = [
      {
        index: 2,
        name: 'eth0',
        addresses: [],
        counters: COUNTERS,
        hwaddr: '',
        hostName: '',
        mtu: 1500,
        up: true,
        type: 'broadcast',
      },
    ] as const;
    const state = { status: 'Running', pid: 1, processes: 7, cpuNs: 3e9, memory, disk: {}, network } as const;
    const disks = [{ device: '8:0', readBytes: 10, reads: 1, writtenBytes: 20, writes: 2 }];
    const statistics = {
      memory: { active_anon: 1, active_file: 2, inactive_file: 3, rss: 9 },
      memoryLimitBytes: 1000,
      cpuUserNs: 1e9,
      cpuSystemNs: 2e9,
      disks,
    };
    const filesystem = { sizeBytes: 50, usedBytes: 20 };

    addInstance(set, { name: 'c1', project: 'p', state, statistics, filesystem, diskName: () => 'sda' });

    const lines = set.text().split('\n');
    const labels = 'name="c1",project="p",type="container"';
    expect(lines).toEqual(
      expect.arrayContaining([
        `lxd_cpu_seconds_total{cpu="0",mode="user",${labels}} 1`,
        `lxd_cpu_seconds_total{cpu="0",mode="system",${labels}} 2`,
        `lxd_disk_written_bytes_total{device="sda",${labels}} 20`,
        `lxd_filesystem_avail_bytes{mountpoint="/",${labels}} 30`,
        `lxd_memory_Active_bytes{${labels}} 3`,
        `lxd_memory_MemAvailable_bytes{${labels}} 905`,
        `lxd_memory_RSS_bytes{${labels}} 9`,
        `lxd_network_receive_drop_total{device="eth0",${labels}} 7`,
        `lxd_procs_total{${labels}} 7`,
      ]),
    );
  });

  it('are read from control groups of both kinds', () => {
    const files: Record<string, string> = {
      '/cg/memory/g/memory.stat': 'cache 1\nrss 2\n',
      '/cg/memory/g/memory.limit_in_bytes': '9223372036854771712\n',
      '/cg/cpuacct/g/cpuacct.stat': 'user 100\nsystem 50\n',
      '/cg/blkio/g/blkio.throttle.io_service_bytes': '8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n',
      '/cg/blkio/g/blkio.throttle.io_serviced': '8:0 Read 1\n8:0 Write 2\n',
      '/cg2/g/memory.stat': 'anon 2\nfile 1\n',
      '/cg2/g/memory.max': '4096\n',
      '/cg2/g/cpu.stat': 'usage_usec 3\nuser_usec 2\nsystem_usec 1\n',
      '/cg2/g/io.stat': '8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n',
    };
    const read = (path: string) => files[path];
    const v1 = new Map(['memory', 'cpuacct', 'blkio'].map((name) => [name, `/cg/${name}`]));
    const v2 = new Map(['memory', 'cpu', 'io'].map((name) => [name, '/cg2']));
    const disks = [{ device: '8:0', readBytes: 10, reads: 1, writtenBytes: 20, writes: 2 }];

    expect(readStatistics(read, { unified: false, controllers: v1, mountPoints: [] }, 'g')).toEqual({
      memory: { cache: 1, rss: 2 },
      cpuUserNs: 1e9,
      cpuSystemNs: 5e8,
      disks,
    });
    expect(readStatistics(read, { unified: true, controllers: v2, mountPoints: [] }, 'g')).toEqual({
      memory: { anon: 2, file: 1 },
      memoryLimitBytes: 4096,
      cpuUserNs: 2000,
      cpuSystemNs: 1000,
      disks,
    });
  });
});
