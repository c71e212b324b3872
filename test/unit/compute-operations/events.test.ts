// External events: who waits gets them, and caches follow Neutron.
import { describe, expect, it } from 'vitest';
import { EventInbox } from '#src/compute/events/event-inbox.ts';
import { AppError } from '#src/lib/errors.ts';
import { ComputeHarness, instanceOf, networkRequests, object } from '#test/fakes/compute-harness.ts';

type Json = Readonly<Record<string, any>>;
const PLUGGED = { name: 'network-vif-plugged', tag: 'p1', status: 'completed' };

function eventOf(instance: Json, name: string, tag: string | null = null): Json {
  const fields = { instance_uuid: instance['nova_object.data'].uuid, name, status: 'completed', tag, data: {} };
  return object('InstanceExternalEvent', '1.5', fields);
}

async function instanceWithPort(harness: ComputeHarness): Promise<Json> {
  const network = harness.neutron.addNetwork();
  const instance = instanceOf();
  await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });
  harness.plane.sent.length = 0;
  return instanceOf(harness.row(instance));
}

function cacheOf(harness: ComputeHarness, instance: Json): Json[] {
  return JSON.parse(harness.row(instance)['info_cache']['nova_object.data'].network_info);
}

describe('the inbox', () => {
  const soon = (): AbortSignal => AbortSignal.timeout(30);

  it('gives an event to whoever waits for it', async () => {
    const inbox = new EventInbox();
    using watch = inbox.watch('i');
    const waiting = watch.wait('network-vif-plugged', 'p1', soon());

    expect(inbox.deliver('i', PLUGGED)).toBe(true);

    expect(await waiting).toEqual(PLUGGED);
  });

  it('keeps an event that came before the wait but after the watch was opened', async () => {
    const inbox = new EventInbox();
    using watch = inbox.watch('i');

    inbox.deliver('i', PLUGGED);

    expect(await watch.wait('network-vif-plugged', 'p1', soon())).toEqual(PLUGGED);
  });

  it('forgets that an interface was plugged when it is unplugged again', async () => {
    const inbox = new EventInbox();
    using watch = inbox.watch('i');
    inbox.deliver('i', PLUGGED);
    inbox.deliver('i', { ...PLUGGED, name: 'network-vif-unplugged' });

    await expect(watch.wait('network-vif-plugged', 'p1', soon())).rejects.toThrow();
  });

  it('keeps instances and ports apart', async () => {
    const inbox = new EventInbox();
    using watch = inbox.watch('i');
    inbox.deliver('other', PLUGGED);
    inbox.deliver('i', { ...PLUGGED, tag: 'p2' });

    await expect(watch.wait('network-vif-plugged', 'p1', soon())).rejects.toThrow();
  });

  it('holds nothing once the watch is closed', () => {
    const inbox = new EventInbox();
    inbox.watch('i')[Symbol.dispose]();

    expect(inbox.isWatched('i')).toBe(false);
    expect(inbox.deliver('i', PLUGGED)).toBe(false);
  });

  it('says when nothing of an instance is waited for any more', async () => {
    const inbox = new EventInbox();
    const first = inbox.watch('i');
    const second = inbox.watch('i');
    const order: string[] = [];
    const idle = inbox.unwatched('i').then(() => order.push('idle'));
    first[Symbol.dispose]();
    await Promise.resolve();
    order.push('second closes');
    second[Symbol.dispose]();
    await idle;

    await inbox.unwatched('i');

    expect(order).toEqual(['second closes', 'idle']);
  });

  it('ends all waits when the process does', async () => {
    const inbox = new EventInbox();
    using watch = inbox.watch('i');
    const waiting = watch.wait('network-vif-plugged', 'p1', AbortSignal.timeout(5000));

    inbox.cancelAll();

    await expect(waiting).rejects.toThrow('the compute service stops');
  });
});

describe('external_instance_event', () => {
  it('brings the cached addresses up to date after network-changed', async () => {
    await using harness = new ComputeHarness();
    const instance = await instanceWithPort(harness);
    const [port] = [...harness.neutron.ports.values()];
    if (!port) throw new Error('no port');
    harness.neutron.floatingIps.push({
      port_id: port.id,
      fixed_ip_address: '10.77.0.21',
      floating_ip_address: '192.0.2.7',
    });

    await harness.send('external_instance_event', {
      instances: [instance],
      events: [eventOf(instance, 'network-changed', port.id)],
    });

    const [vif] = cacheOf(harness, instance);
    expect(vif?.['network'].subnets[0].ips[0].floating_ips[0].address).toBe('192.0.2.7');
  });

  it('reads the port when the build has ended, once, though Neutron reports the binding twice meanwhile', async () => {
    await using harness = new ComputeHarness();
    const network = harness.neutron.addNetwork();
    harness.neutron.statusWhenBound = 'DOWN';
    const instance = instanceOf();
    const reports: Promise<unknown>[] = [];
    harness.neutron.onBound = (port) => {
      const changed = eventOf(instance, 'network-changed', port.id);
      const events = [changed, eventOf(instance, 'network-vif-plugged', port.id)];
      reports.push(harness.send('external_instance_event', { instances: [instance], events }));
      reports.push(harness.send('external_instance_event', { instances: [instance], events: [changed] }));
    };
    const reads = (): number =>
      harness.neutron.requests.filter(({ what, query }) => what === 'GET ports' && query?.['device_id'] !== undefined)
        .length;
    let whenPlugged: number | undefined;
    harness.vif.onPlug = () => {
      whenPlugged = reads();
    };

    await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });
    await Promise.all(reports);

    expect(harness.row(instance)['vm_state']).toBe('active');
    expect(whenPlugged).toBe(0);
    expect(reads()).toBe(1);
  });

  it('drops a deleted port from the cache and the host', async () => {
    await using harness = new ComputeHarness();
    const instance = await instanceWithPort(harness);
    const [port] = [...harness.neutron.ports.keys()];

    await harness.send('external_instance_event', {
      instances: [instance],
      events: [eventOf(instance, 'network-vif-deleted', port ?? null)],
    });

    expect(cacheOf(harness, instance)).toEqual([]);
    expect(harness.vif.plugged.size).toBe(0);
  });

  it('reads an InstanceList as well as a list', async () => {
    await using harness = new ComputeHarness();
    const instance = await instanceWithPort(harness);

    await harness.send('external_instance_event', {
      instances: object('InstanceList', '2.6', { objects: [instance] }),
      events: [eventOf(instance, 'network-changed')],
    });

    expect(harness.plane.names).toContain('InstanceInfoCache.refresh');
  });

  it('does not lose the events of one instance because those of another fail', async () => {
    await using harness = new ComputeHarness();
    const gone = instanceOf();
    const instance = await instanceWithPort(harness);
    const [port] = [...harness.neutron.ports.keys()];
    harness.neutron.fail('GET ports', new AppError('unavailable', 'neutron'));

    await harness.send('external_instance_event', {
      instances: [gone, instance],
      events: [eventOf(gone, 'network-changed'), eventOf(instance, 'network-vif-deleted', port ?? null)],
    });

    expect(cacheOf(harness, instance)).toEqual([]);
    expect(harness.log.lines.some(({ level }) => level === 'error')).toBe(true);
  });

  it('adds a port that the cache does not have, behind the others', async () => {
    await using harness = new ComputeHarness();
    const instance = await instanceWithPort(harness);
    const uuid = instance['nova_object.data'].uuid;
    const network = harness.neutron.addNetwork({ name: 'second' });
    const added = harness.neutron.addPort(network, { device_id: uuid, 'binding:vif_type': 'bridge' });

    await harness.send('external_instance_event', {
      instances: [instance],
      events: [eventOf(instance, 'network-changed', added.id)],
    });

    expect(cacheOf(harness, instance).map((vif) => vif['network'].label)).toEqual(['labnet', 'second']);
  });

  it('ignores what only other kinds of compute do something about', async () => {
    await using harness = new ComputeHarness();
    const instance = await instanceWithPort(harness);

    await harness.send('external_instance_event', {
      instances: [instance],
      events: [eventOf(instance, 'power-update', 'POWER_OFF')],
    });

    expect(harness.plane.names).toEqual([]);
  });
});
