// What every driver of a VIF promises, whatever it plugs into.
import { expect, it } from 'vitest';
import type { BoundVif, VifDriver } from '#drivers/vif/driver.ts';

export interface VifMachine extends AsyncDisposable {
  readonly vif: BoundVif;
  readonly driver: VifDriver;
  /** As after a restart of the compute. */
  again(): VifDriver;
  /** The interfaces and the ports of switches that were not there in the beginning. */
  traces(): Promise<readonly string[]>;
  remove(trace: string): Promise<void>;
  /** Moves an end into a container. */
  give(link: string): Promise<void>;
  /** An interface of somebody else has the name. */
  occupy(link: string): Promise<void>;
}

const signal = (): AbortSignal => AbortSignal.timeout(20_000);

export function vifContract(newMachine: () => Promise<VifMachine>): void {
  it('makes the end for the container, and says what it is', async () => {
    await using machine = await newMachine();
    const { vif } = machine;

    const nic = await machine.driver.plug(vif, 'eth0', signal());

    expect(nic).toMatchObject({ vifId: vif.id, macAddress: vif.macAddress, mtu: vif.mtu, guestInterface: 'eth0' });
    expect(await machine.traces()).toEqual(
      expect.arrayContaining([`link ${nic.hostInterface}`, `link tap${vif.id.slice(0, 11)}`]),
    );
  });

  it('makes nothing more when it is asked again, and leaves the end alone that is in a container', async () => {
    await using machine = await newMachine();
    const nic = await machine.driver.plug(machine.vif, 'eth0', signal());
    await machine.give(nic.hostInterface);
    const traces = await machine.traces();

    await machine.driver.plug(machine.vif, 'eth0', signal());
    await machine.again().plug(machine.vif, 'eth0', signal());

    expect(await machine.traces()).toEqual(traces);
  });

  it('mends what is missing, whatever it is', async () => {
    await using machine = await newMachine();
    await machine.driver.plug(machine.vif, 'eth0', signal());
    const traces = await machine.traces();

    for (const trace of traces) {
      await machine.remove(trace);
      await machine.again().plug(machine.vif, 'eth0', signal());
      expect(await machine.traces(), `after ${trace} was gone`).toEqual(traces);
    }
  });

  it('takes everything away, also what is only half there', async () => {
    await using machine = await newMachine();
    await machine.driver.plug(machine.vif, 'eth0', signal());

    for (const trace of await machine.traces()) {
      await machine.remove(trace);
      await machine.again().unplug(machine.vif, signal());
      expect(await machine.traces(), `after ${trace} was gone`).toEqual([]);
      await machine.again().plug(machine.vif, 'eth0', signal());
    }
  });

  it('is content to take away what is not there', async () => {
    await using machine = await newMachine();

    await machine.driver.unplug(machine.vif, signal());
    await machine.driver.plug(machine.vif, 'eth0', signal());
    await machine.driver.unplug(machine.vif, signal());
    await machine.driver.unplug(machine.vif, signal());

    expect(await machine.traces()).toEqual([]);
  });

  it('does nothing for a MAC address, or an id, that is none', async () => {
    await using machine = await newMachine();
    const { vif, driver } = machine;

    for (const change of [{ macAddress: 'fa:16:3e:9c:26:2c\nlink del eth0' }, { id: 'x\nlink del y' }]) {
      await expect(driver.plug({ ...vif, ...change }, 'eth0', signal())).rejects.toMatchObject({ kind: 'invalid' });
    }

    expect(await machine.traces()).toEqual([]);
  });

  it('leaves nothing when it cannot make its pair', async () => {
    await using machine = await newMachine();
    const { hostInterface } = await machine.driver.plug(machine.vif, 'eth0', signal());
    await machine.driver.unplug(machine.vif, signal());
    await machine.occupy(hostInterface);

    await expect(machine.driver.plug(machine.vif, 'eth0', signal())).rejects.toThrow('File exists');

    expect(await machine.traces()).toEqual([`link ${hostInterface}`]);
  });
}
