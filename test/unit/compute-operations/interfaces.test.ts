// attach_interface and detach_interface.
import { describe, expect, it } from 'vitest';
import { AppError } from '#src/lib/errors.ts';
import { ComputeHarness, instanceOf, networkRequests } from '#test/fakes/compute-harness.ts';

type Json = Readonly<Record<string, any>>;
const NOTHING = { network_id: null, port_id: null, requested_ip: null, tag: null };

async function running(harness: ComputeHarness): Promise<Json> {
  const network = harness.neutron.addNetwork();
  const instance = instanceOf();
  await harness.build(instance, { requested_networks: networkRequests({ network_id: network.id }) });
  harness.neutron.requests.length = 0;
  harness.moments.length = 0;
  return instanceOf(harness.row(instance));
}

const nicsOf = (harness: ComputeHarness, instance: Json) =>
  harness.virt.instances.get(instance['nova_object.data'].uuid)?.nics ?? [];
const cacheOf = (harness: ComputeHarness, instance: Json): Json[] =>
  JSON.parse(harness.row(instance)['info_cache']['nova_object.data'].network_info);

describe('the bandwidth of the flavor', () => {
  const limited = (specs: Json): Json => {
    const instance = instanceOf();
    const { flavor } = instance['nova_object.data'];
    return instanceOf({
      flavor: { ...flavor, 'nova_object.data': { ...flavor['nova_object.data'], extra_specs: specs } },
    });
  };

  it('is that of every interface, of those that come later as well', async () => {
    await using harness = new ComputeHarness();
    const rates: unknown[] = [];
    harness.vif.onPlug = (vif) => rates.push(vif.rates);
    const [first, second] = [harness.neutron.addNetwork(), harness.neutron.addNetwork({ name: 'second' })];
    const instance = limited({ 'quota:vif_inbound_average': '2', 'quota:vif_inbound_peak': '3' });

    await harness.build(instance, { requested_networks: networkRequests({ network_id: first.id }) });
    const { flavor: _flavor, ...sent } = harness.row(instance);
    const built = instanceOf(sent);
    delete built['nova_object.data'].flavor; // Nova's API does not send it
    await harness.send('attach_interface', { instance: built, ...NOTHING, network_id: second.id });

    const expected = { inbound: { averageBytes: 2048, peakBytes: 3072, burstBytes: null }, outbound: null };
    expect(rates).toEqual([expected, expected]);
  });

  it('that means nothing fails the build before anything is made', async () => {
    await using harness = new ComputeHarness();
    const instance = limited({ 'quota:vif_outbound_peak': '3' });

    await harness.build(instance);

    expect(harness.row(instance)['vm_state']).toBe('error');
    expect(JSON.stringify(harness.plane.faults)).toContain('without quota:vif_outbound_average');
  });
});

describe('attach_interface', () => {
  it('makes a port on a network, plugs it and puts it into the guest, and answers with the VIF', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    const second = harness.neutron.addNetwork({ name: 'second' });

    const vif = (await harness.send('attach_interface', { instance, ...NOTHING, network_id: second.id })) as Json;

    expect(vif).toMatchObject({
      type: 'bridge',
      network: { id: second.id, label: 'second' },
      preserve_on_delete: false,
    });
    expect(harness.neutron.ports.get(vif['id'])).toMatchObject({ 'binding:host_id': 'fake1' });
    expect(nicsOf(harness, instance).map(({ guestInterface, vifId }) => [guestInterface, vifId])).toEqual([
      ['eth0', expect.any(String)],
      ['eth1', vif['id']],
    ]);
    expect(cacheOf(harness, instance).map(({ id }) => id)).toEqual([nicsOf(harness, instance)[0]?.vifId, vif['id']]);
    expect(harness.moments).toEqual(['interface_attach.start', 'interface_attach.end']);
  });

  it('takes the port of the user, which stays when the interface goes', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    const port = harness.neutron.addPort(harness.neutron.addNetwork({ name: 'second' }));

    await harness.send('attach_interface', { instance, ...NOTHING, port_id: port.id });
    const attached = instanceOf(harness.row(instance));
    await harness.send('detach_interface', { instance: attached, port_id: port.id });

    expect(harness.neutron.ports.get(port.id)).toMatchObject({ device_id: '', 'binding:host_id': '' });
    expect(nicsOf(harness, instance)).toHaveLength(1);
    expect(cacheOf(harness, instance)).toHaveLength(1);
    expect(harness.vif.plugged.size).toBe(1);
  });

  it('leaves nothing when the guest cannot take it', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    const second = harness.neutron.addNetwork({ name: 'second' });
    harness.virt.failNext('attachNic', new AppError('internal', 'no such device'));

    await expect(
      harness.send('attach_interface', { instance, ...NOTHING, network_id: second.id }),
    ).rejects.toMatchObject({ name: 'InterfaceAttachFailed' });

    expect(harness.neutron.ports.size).toBe(1);
    expect(harness.vif.plugged.size).toBe(1);
    expect(cacheOf(harness, instance)).toHaveLength(1);
    expect(harness.row(instance)['vm_state']).toBe('active');
    expect(harness.moments).toEqual(['interface_attach.start', 'interface_attach.error', 'failure attach_interface']);
  });

  it('leaves nothing when Neutron cannot bind the port', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    const second = harness.neutron.addNetwork({ name: 'second' });
    harness.neutron.fail('PUT port', new AppError('unavailable', 'neutron is away'));

    await expect(harness.send('attach_interface', { instance, ...NOTHING, network_id: second.id })).rejects.toThrow(
      'neutron is away',
    );

    expect(harness.neutron.ports.size).toBe(1);
    expect(cacheOf(harness, instance)).toHaveLength(1);
  });

  it('with a tag tells the guest of it until the interface goes', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    const second = harness.neutron.addNetwork({ name: 'second' });
    const wish = { ...NOTHING, network_id: second.id, tag: 'storage' };

    const vif = (await harness.send('attach_interface', { instance, ...wish })) as Json;
    const told = harness.row(instance)['device_metadata'];
    await harness.send('detach_interface', { instance: instanceOf(harness.row(instance)), port_id: vif['id'] });

    expect(told['nova_object.data'].devices).toMatchObject([
      {
        'nova_object.name': 'NetworkInterfaceMetadata',
        'nova_object.data': { mac: vif['address'], tags: ['storage'] },
      },
    ]);
    expect(harness.row(instance)['device_metadata']['nova_object.data'].devices).toEqual([]);
  });
});

describe('detach_interface', () => {
  it('takes the interface out, unplugs it and deletes the port', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    const [vif] = cacheOf(harness, instance);

    await harness.send('detach_interface', { instance, port_id: vif?.['id'] });

    expect(nicsOf(harness, instance)).toEqual([]);
    expect(harness.neutron.ports.size).toBe(0);
    expect(harness.vif.plugged.size).toBe(0);
    expect(cacheOf(harness, instance)).toEqual([]);
    expect(harness.plane.virtualInterfaces).toEqual([]);
  });

  it('keeps everything when the guest does not let it go', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);
    const [vif] = cacheOf(harness, instance);
    harness.virt.failNext('detachNic', new AppError('internal', 'busy'));

    await expect(harness.send('detach_interface', { instance, port_id: vif?.['id'] })).rejects.toMatchObject({
      name: 'InterfaceDetachFailed',
    });

    expect(harness.neutron.ports.size).toBe(1);
    expect(cacheOf(harness, instance)).toHaveLength(1);
  });

  it('does not know a port of another instance', async () => {
    await using harness = new ComputeHarness();
    const instance = await running(harness);

    await expect(harness.send('detach_interface', { instance, port_id: 'other' })).rejects.toMatchObject({
      name: 'PortNotFound',
    });
  });
});
