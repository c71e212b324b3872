// Notifications of a service without a notification driver: none.
import type { InstanceNotifications } from '../types.ts';

export const silentNotifications: InstanceNotifications = { moment() {}, failure() {} };
