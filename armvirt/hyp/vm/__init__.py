"""A virtual machine beside its vCPUs: capabilities, interrupt lines, irqfd, ioeventfd, memory."""
