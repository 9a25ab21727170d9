from django.contrib import admin

from shop.models import Order, Refund

admin.site.register([Order, Refund])
