// VIF types of ports that Neutron bound to nothing: plugging says why it cannot work.
import { AppError } from '#src/lib/errors.ts';
import type { VifModule } from '../driver.ts';

const REASONS = {
  unbound: 'is bound to no host',
  binding_failed: 'could not be bound to this host: its Neutron agent is down, or does not serve the network',
} as const;

export const unbound: VifModule = {
  name: 'unbound',
  create: () => ({
    types: Object.keys(REASONS),
    async plug({ id, type }) {
      throw new AppError('conflict', `port ${id} ${REASONS[type as keyof typeof REASONS]}`);
    },
    /** There is nothing on this host. */
    async unplug() {},
  }),
};
