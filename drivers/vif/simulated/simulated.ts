// Interfaces of simulated guests: whatever Neutron bound is plugged at once, and this machine is not touched.
import type { VifModule } from '../driver.ts';

export const simulated: VifModule = {
  name: 'simulated',
  create: () => ({
    types: ['bridge', 'ovs', 'tap', 'vhostuser', 'hw_veb', 'other'],
    async plug({ id, macAddress, mtu }, guestInterface) {
      const hostInterface = `tin${id.slice(0, 11)}`;
      return { vifId: id, macAddress, ...(mtu !== null && { mtu }), hostInterface, guestInterface };
    },
    async unplug() {},
  }),
};
